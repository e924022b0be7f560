//! Resources by a real MCP client.

use rmcp::model::{ReadResourceRequestParams, ResourceContents};
use salt_bridge_sim::McpClient;
use serde_json::Value;

use super::machine::{ERAS, on_host};

#[test]
fn every_qube_in_scope_is_a_resource_in_both_eras() {
    on_host(async |machine| {
        std::fs::write(machine.home("work").join("notes"), "hello").unwrap();
        for era in ERAS {
            let client = McpClient::start(&machine.host, era).await.unwrap();
            let peer = client.peer();
            let listed = peer.list_all_resources().await.unwrap();
            let uris: Vec<_> = listed.iter().map(|resource| resource.uri.as_str()).collect();
            assert!(uris.contains(&"qubes://vm/work") && uris.contains(&"qubes://vm/ai-build"));
            assert!(!uris.contains(&"qubes://vm/vault"));
            let read = async |uri: &str| {
                let read = peer.read_resource(ReadResourceRequestParams::new(uri)).await;
                let read = read.unwrap();
                let ResourceContents::TextResourceContents { text, .. } = &read.contents[0] else {
                    panic!("not a text: {read:?}")
                };
                text.clone()
            };
            for uri in ["qubes://vm/work", "qubes://vms", "qubes://vm/work/firewall"] {
                serde_json::from_str::<Value>(&read(uri).await).unwrap();
            }
            assert_eq!(read("qubes://vm/work/file/notes").await, "hello");
            assert!(read("qubes://topology").await.starts_with("<svg"));
            for uri in ["qubes://vm/vault", "qubes://vm/test/file//etc/hosts"] {
                let outcome = peer.read_resource(ReadResourceRequestParams::new(uri)).await;
                let error = outcome.unwrap_err().to_string();
                assert!(error.contains("request refused"), "{uri}: {error}");
            }
        }
    });
}
