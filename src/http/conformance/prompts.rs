//! The prompts that the suite asks for.

use rmcp::{
    ErrorData,
    model::{GetPromptRequestParams, GetPromptResponse, GetPromptResult, Prompt},
};
use serde_json::{Value, json};

use super::{inputs, read, resources::PIXEL};

/// All of them.
pub(super) fn list() -> Result<Vec<Prompt>, ErrorData> {
    read(json!([
        {"name": "test_simple_prompt", "description": "One sentence"},
        {"name": "test_prompt_with_arguments", "description": "A sentence of two words", "arguments": [
            {"name": "arg1", "description": "The first word", "required": true},
            {"name": "arg2", "description": "The second word", "required": true}
        ]},
        {"name": "test_prompt_with_embedded_resource", "description": "A sentence and a resource",
         "arguments": [{"name": "resourceUri", "description": "Its address", "required": true}]},
        {"name": "test_prompt_with_image", "description": "A sentence and a picture"},
        {"name": "test_input_required_result_prompt", "description": "One that asks back"}
    ]))
}

/// One of them.
pub(super) fn get(request: &GetPromptRequestParams) -> Result<GetPromptResponse, ErrorData> {
    let argument = |name: &str| {
        let given = request.arguments.as_ref().and_then(|all| all.get(name));
        given.and_then(|value| value.as_str()).unwrap_or_default().to_owned()
    };
    let text = |text: String| json!({"role": "user", "content": {"type": "text", "text": text}});
    let messages = match request.name.as_str() {
        "test_simple_prompt" => vec![text("This is a simple prompt for testing.".into())],
        "test_prompt_with_arguments" => {
            let (one, two) = (argument("arg1"), argument("arg2"));
            vec![text(format!("Prompt with arguments: arg1='{one}', arg2='{two}'"))]
        }
        "test_prompt_with_embedded_resource" => {
            let resource = json!({
                "uri": argument("resourceUri"), "mimeType": "text/plain", "text": "A text."
            });
            let resource = json!({"type": "resource", "resource": resource});
            vec![
                json!({"role": "user", "content": resource}),
                text("Please process the embedded resource above.".into()),
            ]
        }
        "test_prompt_with_image" => {
            let picture = json!({"type": "image", "data": PIXEL, "mimeType": "image/png"});
            vec![
                json!({"role": "user", "content": picture}),
                text("Please analyze the image above.".into()),
            ]
        }
        "test_input_required_result_prompt" => {
            match inputs::answer(request.input_responses.as_ref(), "user_context") {
                Some(answer) => {
                    let context = answer.get("content").and_then(|it| it.get("context"));
                    let context = context.and_then(Value::as_str).unwrap_or_default();
                    vec![text(format!("Use the context: {context}"))]
                }
                None => {
                    let asked = inputs::form("Which context?", "context", "string")?;
                    return Ok(inputs::ask([("user_context", asked)], None).into());
                }
            }
        }
        name => {
            let message = format!("there is no prompt {name:?}");
            return Err(ErrorData::invalid_params(message, None));
        }
    };
    Ok(GetPromptResult::new(read(messages.into())?).into())
}
