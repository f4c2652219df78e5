//! Connections that break in the middle of a call: it runs once, and every piece arrives once.

mod common;

use std::net::SocketAddr;

use common::{Node, Plan, collect, eventually, lock, request, tcp};
use openfang_id::{NetAddr, PeerAddr, Transport};
use openfang_mesh::{CallError, MeshEvent};
use openfang_ofp::call::CallId;
use openfang_ofp::roster::Liveness;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Passes TCP connections on until it is dropped; then all of them break at once.
struct Proxy {
    addr: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Proxy {
    async fn to(target: SocketAddr, at: &str) -> Self {
        let listener = TcpListener::bind(at).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut passed = JoinSet::new();
            while let Ok((mut inner, _)) = listener.accept().await {
                passed.spawn(async move {
                    if let Ok(mut outer) = TcpStream::connect(target).await {
                        drop(tokio::io::copy_bidirectional(&mut inner, &mut outer).await);
                    }
                });
            }
        });
        Self {
            addr,
            _tasks: tasks,
        }
    }
}

/// Two nodes that reach each other through the proxy only: the first listens where nobody is told.
async fn through_proxy() -> (Node, Node, Proxy) {
    let a = Plan::new(1).listen(&[tcp("127.0.0.1:0")]).start().await;
    let proxy = Proxy::to(a.socket(Transport::Tcp), "127.0.0.1:0").await;
    let addr = NetAddr::from_socket(Transport::Tcp, proxy.addr);
    let b = Plan::new(2)
        .listen(&[])
        .bootstrap(vec![PeerAddr { addr, node: None }])
        .start()
        .await;
    eventually("linked", || {
        b.is_linked(a.id()) && a.is_linked(b.id()) && b.liveness(a.id()) == Some(Liveness::Alive)
    })
    .await;
    (a, b, proxy)
}

fn connections(node: &Node) -> usize {
    let events = lock(&node.host.events);
    let made = |event: &&MeshEvent| matches!(event, MeshEvent::PeerConnected { .. });
    events.iter().filter(made).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_survives_its_connection() {
    let (a, b, proxy) = through_proxy().await;
    // From the one that was dialled to the one that dials: nobody can reach b but b itself.
    b.host.steps.add_permits(3);
    let mut reply = a
        .mesh
        .call(b.id(), request(1, "step:6"))
        .await
        .expect("a reply");
    for n in 0..3 {
        let piece = reply.next().await.expect("a piece").expect("a piece");
        assert_eq!(piece, common_text(n));
    }
    let at = proxy.addr.to_string();
    let before = connections(&a);
    drop(proxy);
    eventually("the break is noticed", || !a.is_linked(b.id())).await;
    // While nobody is connected the run goes on.
    b.host.steps.add_permits(2);
    let _proxy = Proxy::to(a.socket(Transport::Tcp), &at).await;
    eventually("connected again", || connections(&a) > before).await;
    b.host.steps.add_permits(1);
    let (rest, ended) = collect(reply).await;
    assert_eq!(rest, ["3", "4", "5"]);
    assert_eq!(ended, Ok("done".to_owned()));
    assert_eq!(b.host.runs_of(CallId([1; 16])), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_not_sent_to_a_node_that_was_restarted() {
    let a = Plan::new(1).listen(&[tcp("127.0.0.1:0")]).start().await;
    let b = Plan::new(2)
        .listen(&[tcp("127.0.0.1:0")])
        .bootstrap(vec![a.anonymous(Transport::Tcp)])
        .start()
        .await;
    eventually("linked", || {
        a.is_linked(b.id()) && a.liveness(b.id()) == Some(Liveness::Alive)
    })
    .await;
    b.host.steps.add_permits(1);
    let mut reply = a
        .mesh
        .call(b.id(), request(1, "step:2"))
        .await
        .expect("a reply");
    assert!(matches!(reply.next().await, Some(Ok(_))));
    let b = b.kill().start().await;
    let lost = reply.next().await;
    assert!(
        matches!(&lost, Some(Err(CallError::Lost { node, .. })) if *node == b.id()),
        "{lost:?}"
    );
    assert_eq!(b.host.runs_of(CallId([1; 16])), 0);
    assert!(reply.next().await.is_none());
}

fn common_text(n: u32) -> openfang_ofp::call::Frame {
    openfang_ofp::call::Frame::Chunk(openfang_ofp::call::Chunk::Text(n.to_string()))
}
