// Stands in for the Messages API on loopback and works through a script of tool calls, so that the
// real Claude Code client can be held against the simulated host without a network or a model.
//
// usage: node model.mjs SCRIPT.json LOG.jsonl    (prints the port that it listens on)
//
// SCRIPT.json is a list of steps: {"does": what for, "tool": name, "input": {...}} and, optional,
// "expect": a regular expression that the answer must match, "error": true where it must be an
// error, and "save": {name: regular expression with one group}, whose find stands for $name in the
// inputs of later steps, or for {"$int": name} where a number is wanted. LOG.jsonl gets a line for each answer, with the length that the model sees.
import { appendFileSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const [scriptFile, logFile] = process.argv.slice(2);
const script = JSON.parse(readFileSync(scriptFile, 'utf8'));
const saved = {};
let judged = 0;
let failure = null;

const log = (line) => appendFileSync(logFile, JSON.stringify(line) + '\n');

// The text of a tool's answer, as a model would see it.
function textOf(result) {
  if (typeof result.content === 'string') return result.content;
  return (result.content ?? []).map((block) => block.text ?? JSON.stringify(block)).join('\n');
}

// Holds the answer of a step against what the step expects.
function judge(step, result) {
  const text = textOf(result);
  const wrong = [];
  if (Boolean(result.is_error) !== Boolean(step.error)) wrong.push(result.is_error ? 'an error' : 'no error');
  if (step.expect && !new RegExp(step.expect, 's').test(text)) wrong.push(`does not match ${step.expect}`);
  for (const [name, pattern] of Object.entries(step.save ?? {})) {
    const found = new RegExp(pattern, 's').exec(text);
    if (found) saved[name] = found[1];
    else wrong.push(`nothing to save as ${name}`);
  }
  log({ does: step.does, tool: step.tool, ok: wrong.length === 0, bytes: Buffer.byteLength(text),
    ...(wrong.length ? { wrong, text: text.slice(0, 2000) } : {}) });
  return wrong;
}

// An input with what earlier steps have saved.
function fill(value) {
  if (typeof value === 'string') return value.replace(/\$(\w+)/g, (all, name) => saved[name] ?? all);
  if (Array.isArray(value)) return value.map(fill);
  if (value?.$int) return Number(saved[value.$int]);
  if (value && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, fill(inner)]));
  }
  return value;
}

// What the model says next.
function turn(body) {
  if (!body.tools?.length) return [[{ type: 'text', text: 'ok' }], 'end_turn'];
  const results = (body.messages ?? [])
    .flatMap((message) => (Array.isArray(message.content) ? message.content : []))
    .filter((block) => block.type === 'tool_result');
  while (!failure && judged < results.length) {
    const step = script[judged];
    const wrong = judge(step, results[judged]);
    if (wrong.length) failure = `${step.does}: ${wrong.join(', ')}`;
    judged += 1;
  }
  if (judged === 0) log({ offered: body.tools.map((tool) => tool.name),
    bytes: Buffer.byteLength(JSON.stringify(body.tools)) });
  if (failure) return [[{ type: 'text', text: `failed: ${failure}` }], 'end_turn'];
  if (judged === script.length) return [[{ type: 'text', text: 'all steps done' }], 'end_turn'];
  const { tool, input } = script[judged];
  return [[{ type: 'tool_use', id: `toolu_${String(judged).padStart(4, '0')}`, name: tool,
    input: fill(input) }], 'tool_use'];
}

function stream(response, message, blocks, stop) {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  const send = (type, data) =>
    response.write(`event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`);
  send('message_start', { message });
  blocks.forEach((block, index) => {
    const text = block.type === 'text';
    const empty = text ? { type: 'text', text: '' } : { ...block, input: {} };
    const delta = text ? { type: 'text_delta', text: block.text }
      : { type: 'input_json_delta', partial_json: JSON.stringify(block.input) };
    send('content_block_start', { index, content_block: empty });
    send('content_block_delta', { index, delta });
    send('content_block_stop', { index });
  });
  send('message_delta', { delta: { stop_reason: stop, stop_sequence: null }, usage: { output_tokens: 1 } });
  send('message_stop', {});
  response.end();
}

const server = createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const json = (value) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify(value));
    };
    if (request.method !== 'POST') return json({ data: [] });
    if (request.url.includes('count_tokens')) return json({ input_tokens: 1 });
    if (!request.url.includes('/messages')) return json({});
    const body = JSON.parse(Buffer.concat(chunks).toString() || '{}');
    const [blocks, stop] = turn(body);
    const message = { id: 'msg_1', type: 'message', role: 'assistant', model: body.model ?? 'm', content: [],
      stop_reason: null, stop_sequence: null, usage: { input_tokens: 1, output_tokens: 1 } };
    if (body.stream) return stream(response, message, blocks, stop);
    return json({ ...message, content: blocks, stop_reason: stop });
  });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
