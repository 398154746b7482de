//! Connections through the switch begin and end as they would without it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::ensure;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;
use vswitch_tests::{Daemon, Namespace, Pod, eventually, inside, join};

use crate::daemon;

/// Threads that connect at the same time.
const CLIENTS: usize = 4;
/// Connections of each of them.
const EACH: usize = 3_000;
const CLUSTER_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 20));

/// Answers each connection and closes it at once, or after the client did, as long as the test
/// runs.
fn answer(at: &Namespace, port: u16, waits: bool) {
    let bind = move || Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?);
    let listener = join(inside(at, bind).unwrap()).unwrap();
    for _ in 0..CLIENTS {
        let listener = listener.try_clone().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if !waits || stream.read_to_end(&mut Vec::new()).is_ok() {
                    let _ = stream.write_all(b"answer");
                }
            }
        });
    }
}

/// Connects, sends a FIN, reads the answer and closes with a reset.
fn connect_once(to: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut [0; 6])?;
    let reset = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream.as_fd(), sockopt::Linger, &reset)?;
    Ok(())
}

/// Makes short connections from all threads without a pause; returns those that failed.
fn lost(client: &Pod, to: SocketAddr) -> Vec<String> {
    let work = move || {
        let lost = (0..EACH).filter_map(|nth| Some((nth, connect_once(to).err()?)));
        Ok(lost
            .map(|(nth, error)| format!("{nth}: {error}"))
            .collect::<Vec<_>>())
    };
    let threads = [(); CLIENTS].map(|()| inside(&client.netns, work).unwrap());
    threads
        .into_iter()
        .flat_map(|thread| join(thread).unwrap())
        .collect()
}

fn serve_as_service(daemon: &Daemon, server: &Pod) {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "short"},
        "spec": {"clusterIP": CLUSTER_IP, "ports": [
            {"name": "now", "port": 80, "targetPort": 8080},
            {"name": "later", "port": 81, "targetPort": 8081}]}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "short-1", "labels": {"kubernetes.io/service-name": "short"}},
        "addressType": "IPv4", "endpoints": [{"addresses": [server.ip()]}],
        "ports": [{"name": "now", "port": 8080}, {"name": "later", "port": 8081}]});
    for object in [service, slice] {
        daemon.apply(&object.to_string()).unwrap();
    }
}

#[test]
fn of_short_connections_that_use_their_ports_again_at_once_none_is_lost() {
    let daemon = daemon();
    let [client, server] =
        &["client", "server"].map(|name| Pod::named(name).attach(&daemon).unwrap());
    answer(&server.netns, 8080, false);
    answer(&server.netns, 8081, true);
    serve_as_service(&daemon, server);
    // Few ports, which are free again as soon as the client is done: the server is often in
    // TIME_WAIT, and the last segments of the connection before are still on their way.
    let few = [
        "net.ipv4.ip_local_port_range=40000 40015",
        "net.ipv4.tcp_max_tw_buckets=0",
    ];
    client
        .run(&["sysctl", "-qw", few[0], few[1]])
        .unwrap()
        .success()
        .unwrap();
    for to in [
        (server.ip(), 8080),
        (server.ip(), 8081),
        (CLUSTER_IP, 80),
        (CLUSTER_IP, 81),
    ] {
        assert_eq!(lost(client, to.into()), Vec::<String>::new(), "{to:?}");
    }
}

/// RFC 5382 REQ-5: what one side has closed may be silent for as long as an open connection.
#[test]
fn a_half_closed_connection_is_kept_for_its_answer() {
    let daemon = daemon();
    let [client, server] =
        &["client", "server"].map(|name| Pod::named(name).attach(&daemon).unwrap());
    let listen = || Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080))?);
    let listener = join(inside(&server.netns, listen).unwrap()).unwrap();
    let to = SocketAddr::new(server.ip(), 8080);
    let connect = move || Ok(TcpStream::connect(to)?);
    let mut near = join(inside(&client.netns, connect).unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    near.write_all(b"question").unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    far.read_to_end(&mut Vec::new()).unwrap();
    eventually("it is kept for two hours and four minutes", || {
        let connections = daemon.vsctl_json(&["dump-conntrack"])?;
        let kept = connections[0]["timeout_seconds"].as_f64();
        ensure!(kept > Some(2.0 * 3_600.0 + 3.0 * 60.0), "{connections}");
        Ok(())
    });
    far.write_all(b"answer").unwrap();
    drop(far);
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");
}
