//! Reaching a port from within a qube.

use super::*;
use crate::run::Reached;

async fn reach(host: &str, port: u16) -> Reached {
    let never = CancellationToken::new();
    Qube::new().runner().reach(place(30.0), host, port, &never).await.unwrap()
}

#[test]
fn a_port_that_listens_is_reached_and_one_that_does_not_refuses() {
    block_on(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = reach("127.0.0.1", port).await;
        assert_eq!((found.addresses_exit, found.connect_exit), (Some(0), Some(0)), "{found:?}");
        assert!(found.addresses.starts_with("127.0.0.1"), "{found:?}");
        drop(listener);
        let found = reach("127.0.0.1", port).await;
        assert_eq!(found.connect_exit, Some(1), "{found:?}");
        assert!(found.connect.contains("Connection refused"), "{found:?}");
    });
}

#[test]
fn a_host_is_never_shell() {
    block_on(async {
        let found = reach("$(echo 127.0.0.1);'\"`id`", 1).await;
        assert!(found.addresses_exit.is_some_and(|code| code != 0), "{found:?}");
        assert_eq!((found.connect.as_str(), found.connect_exit), ("", None), "{found:?}");
    });
}
