//! Who is in the mesh: meeting, leaving, dying and coming back, over real sockets.

mod common;

use std::time::Duration;

use common::{Plan, agent, eventually, pair, quic, request, secret, tcp};
use openfang_id::{Host, NetAddr, PeerAddr, Transport};
use openfang_mesh::{AddrFailure, CallError, JoinError, MeshEvent, StartError, Status};
use openfang_ofp::gate::Epoch;
use openfang_ofp::roster::{Event, Liveness};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_meet_and_see_each_others_agents() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let (a, b) = pair(transport).await;
        assert_eq!(a.transport_to(b.id()), Some(transport));
        a.mesh.set_agents(vec![agent(1, "writer")]);
        b.mesh
            .set_agents(vec![agent(2, "reader"), agent(3, "critic")]);
        eventually("agents are seen", || {
            a.agents_of(b.id()) == ["reader", "critic"] && b.agents_of(a.id()) == ["writer"]
        })
        .await;
        b.mesh.set_agents(Vec::new());
        eventually("agents are gone", || a.agents_of(b.id()).is_empty()).await;
        assert!(a.host.any_event(|event| matches!(
            event,
            MeshEvent::PeerConnected { node, transport: by } if *node == b.id() && *by == transport
        )));
        a.shutdown().await;
        b.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_node_is_learnt_of_and_connected() {
    let (a, b) = pair(Transport::Tcp).await;
    let bootstrap = vec![b.anonymous(Transport::Tcp)];
    let c = Plan::new(3).bootstrap(bootstrap).start().await;
    eventually("a and c, told only of b, are connected", || {
        a.is_linked(c.id()) && c.is_linked(a.id())
    })
    .await;
    assert_eq!(c.liveness(a.id()), Some(Liveness::Alive));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_starts_later_is_found() {
    let late = Plan::new(1).listen(&[tcp("127.0.0.1:0")]).start().await;
    let addr = late.anonymous(Transport::Tcp);
    let socket = late.socket(Transport::Tcp);
    let plan = late.kill();
    let early = Plan::new(2).bootstrap(vec![addr]).start().await;
    eventually("it has tried in vain", || {
        !early.is_linked(plan.keys().node_id())
    })
    .await;
    let late = plan.listen(&[tcp(&socket.to_string())]).start().await;
    eventually("it is found", || early.is_linked(late.id())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dialling_each_other_settles_on_one_connection() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let a = Plan::new(1).start().await;
        let b = Plan::new(2).start().await;
        let (to_a, to_b) = (a.pinned(transport), b.pinned(transport));
        let (from_a, from_b) =
            tokio::join!(a.mesh.join(vec![to_b], None), b.mesh.join(vec![to_a], None));
        from_a.expect("joined");
        from_b.expect("joined");
        let open = |node: &common::Node| {
            let events = common::lock(&node.host.events);
            let count =
                |wanted: fn(&MeshEvent) -> bool| events.iter().filter(|e| wanted(e)).count();
            let made = count(|event| matches!(event, MeshEvent::PeerConnected { .. }));
            made - count(|event| matches!(event, MeshEvent::PeerDisconnected { .. }))
        };
        eventually("one connection is left", || {
            open(&a) == 1 && open(&b) == 1 && a.is_linked(b.id()) && b.is_linked(a.id())
        })
        .await;
        assert_eq!(a.liveness(b.id()), Some(Liveness::Alive));
        assert_eq!(b.liveness(a.id()), Some(Liveness::Alive));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dialling_oneself_is_noticed() {
    let a = Plan::new(1).start().await;
    for transport in [Transport::Tcp, Transport::Quic] {
        // Under another name than the one it listens on, or libp2p itself would not dial.
        let addr = NetAddr {
            host: Host::Name("localhost".into()),
            ..a.addr(transport)
        };
        let peer = PeerAddr { addr, node: None };
        let joined = a.mesh.join(vec![peer], None).await;
        let Err(JoinError::Failed { tried }) = joined else {
            panic!("joined itself: {joined:?}");
        };
        assert_eq!(tried[0].why, AddrFailure::Itself);
    }
    assert!(
        !a.host
            .any_event(|event| matches!(event, MeshEvent::AuthFailed { .. }))
    );
    assert_eq!(a.mesh.view().nodes.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_is_noticed_and_calls_say_so() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let (a, b) = pair(transport).await;
        let dead = b.id();
        drop(b.kill());
        eventually("it is named dead", || {
            a.liveness(dead) == Some(Liveness::Dead)
                && a.host
                    .any_roster_event(|event| *event == Event::NodeDown { node: dead })
        })
        .await;
        let refused = a.mesh.call(dead, request(1, "hello")).await;
        assert!(
            matches!(refused, Err(CallError::Unreachable { node, .. }) if node == dead),
            "{refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_keeps_a_mesh_that_nobody_else_holds() {
    let (a, b) = pair(Transport::Tcp).await;
    let id = b.id();
    let common::Node {
        mesh, owner, plan, ..
    } = b;
    drop(mesh);
    let owner = owner.expect("it runs");
    let reply = a.mesh.call(id, request(1, "hello")).await;
    let (_chunks, answer) = common::collect(reply.expect("taken")).await;
    answer.expect("answered");
    assert_eq!(a.liveness(id), Some(Liveness::Alive));
    owner.shutdown(Duration::from_secs(5)).await;
    eventually("it has left", || a.liveness(id) == Some(Liveness::Left)).await;
    drop(plan);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_farewell_is_not_a_death() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let (a, b) = pair(transport).await;
        let gone = b.id();
        b.shutdown().await;
        eventually("it has left", || a.liveness(gone) == Some(Liveness::Left)).await;
        assert!(
            !a.host
                .any_roster_event(|event| *event == Event::NodeDown { node: gone })
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_the_identity_and_raises_the_incarnation() {
    let (a, b) = pair(Transport::Tcp).await;
    let incarnation = |node: openfang_id::NodeId| {
        let view = a.mesh.view();
        view.node(&node)
            .map(|node| node.record.version().incarnation)
    };
    let id = b.id();
    assert_eq!(incarnation(id), Some(1));
    let b = b.kill().start().await;
    eventually("it is back", || {
        incarnation(id) == Some(2) && a.liveness(id) == Some(Liveness::Alive) && a.is_linked(id)
    })
    .await;
    // The other one is known from the disk: no bootstrap is needed to find it again.
    eventually("it is remembered", || common::remembers(&a.plan, id, 2)).await;
    let plan = a.kill();
    let a = plan.bootstrap(Vec::new()).start().await;
    eventually("the bootstrap node is back too", || {
        a.is_linked(id) && b.is_linked(a.id())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeping_mesh_binds_nothing_and_wakes_on_a_join() {
    let a = Plan::new(1).start().await;
    let b = Plan::new(2).secret(None).start().await;
    assert_eq!(b.mesh.status(), Status::Asleep);
    assert_eq!(b.mesh.view().me, b.id());
    let asleep = b.mesh.call(a.id(), request(1, "hello")).await;
    assert_eq!(asleep.err(), Some(CallError::Asleep));
    let addrs = vec![a.anonymous(Transport::Tcp)];
    let no_secret = b.mesh.join(addrs.clone(), None).await;
    assert!(matches!(no_secret, Err(JoinError::NoSecret)));

    let wrong = b
        .mesh
        .join(addrs.clone(), Some((Epoch(1), secret(9))))
        .await;
    let Err(JoinError::Failed { tried }) = wrong else {
        panic!("joined with a wrong secret: {wrong:?}");
    };
    assert_eq!(tried[0].why, AddrFailure::WrongSecret);
    assert_eq!(b.mesh.status(), Status::Asleep);

    let joined = b.mesh.join(addrs, Some((Epoch(1), secret(1)))).await;
    assert_eq!(joined.expect("joined").node, a.id());
    assert!(matches!(b.mesh.status(), Status::Awake { .. }));
    let reply = b.mesh.call(a.id(), request(2, "hello")).await;
    let (_, ended) = common::collect(reply.expect("a reply")).await;
    assert_eq!(ended, Ok("hello".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_waits_until_its_node_is_ready_and_tells_when_it_is_over() {
    let a = Plan::new(1).start().await;
    let b = Plan::new(2).secret(None).start().await;
    let (ready, wait) = tokio::sync::oneshot::channel();
    common::lock(&b.host.readiness).replace(wait);
    let addrs = vec![a.anonymous(Transport::Tcp)];
    let mesh = b.mesh.clone();
    let join = async { mesh.join(addrs.clone(), Some((Epoch(1), secret(1)))).await };
    let asked = async {
        eventually("it is asked", || common::lock(&b.host.readiness).is_none()).await;
        assert_eq!(b.mesh.status(), Status::Asleep, "no port is bound yet");
        assert_eq!(b.host.joins(), 1);
        ready.send(()).expect("awaited");
    };
    let (joined, ()) = tokio::join!(join, asked);
    assert_eq!(joined.expect("joined").node, a.id());
    assert_eq!(b.host.joins(), 0, "it is over when it is answered");
    let c = Plan::new(3).secret(None).start().await;
    let wrong = c.mesh.join(addrs, Some((Epoch(1), secret(9)))).await;
    assert!(wrong.is_err() && c.host.joins() == 0);
    assert_eq!(c.mesh.status(), Status::Asleep);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_right_after_a_failed_one_finds_its_own_ports_free() {
    let a = Plan::new(1).start().await;
    // Ports that were free a moment ago.
    let before = Plan::new(3).start().await;
    let ports = [
        tcp(&before.socket(Transport::Tcp).to_string()),
        quic(&before.socket(Transport::Quic).to_string()),
    ];
    drop(before.shutdown().await);
    let b = Plan::new(2).listen(&ports).secret(None).start().await;
    let addrs = vec![a.anonymous(Transport::Quic)];
    for _nth in 0..3 {
        let wrong = b
            .mesh
            .join(addrs.clone(), Some((Epoch(1), secret(9))))
            .await;
        assert!(matches!(wrong, Err(JoinError::Failed { .. })), "{wrong:?}");
    }
    let joined = b.mesh.join(addrs, Some((Epoch(1), secret(1)))).await;
    assert_eq!(joined.expect("joined").node, a.id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_is_enough_to_join() {
    let a = Plan::new(1).start().await;
    let b = Plan::new(2).secret(None).start().await;
    assert!(b.mesh.ticket().is_err());
    let text = a.mesh.ticket().expect("a ticket").expose();
    let ticket: openfang_ofp::ticket::Ticket = text.parse().expect("a ticket");
    let secret = (ticket.epoch(), ticket.secret().clone());
    let joined = b.mesh.join(ticket.peers().to_vec(), Some(secret)).await;
    assert_eq!(joined.expect("joined").node, a.id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_does_not_change_meshes() {
    let (a, b) = pair(Transport::Tcp).await;
    let addrs = vec![b.anonymous(Transport::Tcp)];
    let other = a
        .mesh
        .join(addrs.clone(), Some((Epoch(1), secret(2))))
        .await;
    assert!(matches!(other, Err(JoinError::OtherNetwork)));
    let again = a.mesh.join(addrs, Some((Epoch(1), secret(1)))).await;
    assert_eq!(again.expect("connected already").node, b.id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_says_what_went_wrong_at_each_address() {
    let a = Plan::new(1).start().await;
    let b = Plan::new(2).start().await;
    let other = Plan::new(3).secret(Some(secret(2))).start().await;
    let free = Plan::new(4).listen(&[tcp("127.0.0.1:0")]).start().await;
    let nobody = free.anonymous(Transport::Tcp);
    drop(free.kill());
    let stranger = PeerAddr {
        node: Some(other.id()),
        ..b.anonymous(Transport::Quic)
    };
    let unnamed = PeerAddr {
        addr: NetAddr {
            host: Host::Name("no-such-host.invalid".into()),
            ..b.addr(Transport::Tcp)
        },
        node: None,
    };
    let addrs = vec![
        other.anonymous(Transport::Tcp),
        other.anonymous(Transport::Quic),
        nobody,
        stranger,
        unnamed,
    ];
    let joined = a.mesh.join(addrs, None).await;
    let Err(JoinError::Failed { tried }) = joined else {
        panic!("joined: {joined:?}");
    };
    let whys: Vec<&AddrFailure> = tried.iter().map(|tried| &tried.why).collect();
    assert_eq!(whys[0], &AddrFailure::WrongSecret);
    assert_eq!(whys[1], &AddrFailure::WrongSecret);
    assert_eq!(whys[2], &AddrFailure::Refused);
    assert_eq!(whys[3], &AddrFailure::OtherNode { found: b.id() });
    assert!(
        matches!(whys[4], AddrFailure::Name(_) | AddrFailure::TimedOut),
        "{:?}",
        whys[4]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipv6_and_host_names_are_dialled() {
    let listen = [tcp("[::1]:0"), quic("[::1]:0")];
    let a = Plan::new(1).listen(&listen).start().await;
    for (seed, transport) in [(2, Transport::Tcp), (3, Transport::Quic)] {
        let bootstrap = vec![a.anonymous(transport)];
        let b = Plan::new(seed)
            .listen(&listen)
            .bootstrap(bootstrap)
            .start()
            .await;
        eventually("connected over IPv6", || {
            b.transport_to(a.id()) == Some(transport)
        })
        .await;
        b.shutdown().await;
    }
    let c = Plan::new(4).start().await;
    for (seed, transport) in [(5, Transport::Tcp), (6, Transport::Quic)] {
        let addr = NetAddr {
            host: Host::Name("localhost".into()),
            ..c.addr(transport)
        };
        let bootstrap = vec![PeerAddr { addr, node: None }];
        let d = Plan::new(seed).bootstrap(bootstrap).start().await;
        eventually("connected by name", || {
            d.transport_to(c.id()) == Some(transport)
        })
        .await;
        d.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_an_error_that_names_it() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let a = Plan::new(1).start().await;
        let taken = a.socket(transport).to_string();
        let listen = match transport {
            Transport::Tcp => tcp(&taken),
            Transport::Quic => quic(&taken),
        };
        let started = Plan::new(2).listen(&[listen]).try_start().await;
        let Err(StartError::InUse { addr }) = started.map(|_| ()) else {
            panic!("bound {taken} twice");
        };
        assert_eq!(addr, a.addr(transport));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wildcard_address_is_told_as_the_addresses_of_the_machine() {
    let a = Plan::new(1).listen(&[tcp("0.0.0.0:0")]).start().await;
    let Status::Awake { listen, reachable } = a.mesh.status() else {
        panic!("asleep");
    };
    assert!(!listen.is_empty() && !reachable.is_empty());
    let unspecified = |addr: &NetAddr| match &addr.host {
        Host::Ip(ip) => ip.is_unspecified(),
        Host::Name(_) => false,
    };
    assert!(!listen.iter().chain(&reachable).any(unspecified));
    let ticket = a.mesh.ticket().expect("a ticket");
    assert!(ticket.peers().iter().all(|peer| peer.node == Some(a.id())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_everything_in_time() {
    let (a, b) = pair(Transport::Tcp).await;
    let socket = a.socket(Transport::Tcp);
    let mesh = a.mesh.clone();
    a.shutdown().await;
    let closed = mesh.call(b.id(), request(1, "hello")).await;
    assert_eq!(closed.err(), Some(CallError::ShuttingDown));
    let bound = std::net::TcpListener::bind(socket);
    assert!(bound.is_ok(), "the port is free again");
    let waited = tokio::time::timeout(Duration::from_secs(30), b.shutdown()).await;
    assert!(waited.is_ok());
}
