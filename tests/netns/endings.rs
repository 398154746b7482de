//! Connections that end because a pod is gone: whoever only receives hears of it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::json;
use vswitch_tests::{Daemon, DaemonOptions, Namespace, Pod, inside, join};

use crate::nodes::{dual_stack, outside, serve_as_service};

const CLUSTER_IP: [&str; 2] = ["10.96.0.30", "fd96::30"];

/// Longer than any notice takes; who hears nothing waits for ever.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Service of both families with TCP and UDP port 80 at 8080 of the pod.
fn serve_stream(daemon: &Daemon, server: &Pod) {
    let ports = json!([{"name": "tcp", "port": 80, "targetPort": 8080, "protocol": "TCP"},
        {"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"}]);
    let endpoint_ports = json!([{"name": "tcp", "port": 8080, "protocol": "TCP"},
        {"name": "udp", "port": 8080, "protocol": "UDP"}]);
    serve_as_service(
        daemon,
        server,
        ("stream", CLUSTER_IP),
        (&ports, &endpoint_ports),
    );
}

/// Runs something inside a namespace.
fn at<T: Send + 'static>(
    place: &Namespace,
    what: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> T {
    join(inside(place, || Ok(what()?)).unwrap()).unwrap()
}

/// Connects to `to`, and has the server send first; returns both ends.
fn download(client: &Namespace, server: &TcpListener, to: SocketAddr) -> (TcpStream, TcpStream) {
    let mut near = at(client, move || TcpStream::connect_timeout(&to, PATIENCE));
    let (mut far, _) = server.accept().unwrap();
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    // More segments than a flow needs that is handed to the kernel.
    for _ in 0..40 {
        far.write_all(b"part").unwrap();
        near.read_exact(&mut [0; 4]).unwrap();
    }
    (near, far)
}

fn listen(server: &Pod) -> TcpListener {
    at(&server.netns, || TcpListener::bind("[::]:8080"))
}

fn ways(server: &Pod) -> [SocketAddr; 4] {
    let [v4, v6] = CLUSTER_IP.map(|ip| SocketAddr::new(ip.parse().unwrap(), 80));
    let [direct4, direct6] = [0, 1].map(|nth| SocketAddr::new(server.addresses[nth], 8080));
    [v4, v6, direct4, direct6]
}

#[test]
fn a_client_that_only_receives_is_reset_when_its_server_is_gone() {
    let daemon = dual_stack();
    let [client, server] =
        ["client", "server"].map(|name| Pod::named(name).attach(&daemon).unwrap());
    let listener = listen(&server);
    serve_stream(&daemon, &server);
    let mut places: Vec<_> = ways(&server)
        .map(|to| (to, download(&client.netns, &listener, to)))
        .into();
    let from_node = ways(&server).map(|to| (to, download(daemon.node(), &listener, to)));
    places.extend(from_node);
    server.cni("DEL").unwrap().success().unwrap();
    for (to, (mut near, _far)) in places {
        let heard = near.read(&mut [0; 4]).map_err(|error| error.kind());
        assert_eq!(heard, Err(ErrorKind::ConnectionReset), "{to}");
    }
}

#[test]
fn a_server_that_only_receives_is_reset_when_its_client_is_gone() {
    let daemon = dual_stack();
    let [client, server] =
        ["client", "server"].map(|name| Pod::named(name).attach(&daemon).unwrap());
    let listener = listen(&server);
    serve_stream(&daemon, &server);
    let uploads = ways(&server).map(|to| (to, download(&client.netns, &listener, to)));
    client.cni("DEL").unwrap().success().unwrap();
    for (to, (_near, mut far)) in uploads {
        let heard = far.read(&mut [0; 4]).map_err(|error| error.kind());
        assert_eq!(heard, Err(ErrorKind::ConnectionReset), "{to}");
    }
}

#[test]
fn a_client_outside_that_only_receives_is_reset_when_the_pod_behind_a_node_port_is_gone() {
    let daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let outside = outside(&daemon);
    let server = Pod::named("server").attach(&daemon).unwrap();
    let listener = listen(&server);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "stream"},
        "spec": {"type": "NodePort", "clusterIP": CLUSTER_IP[0],
            "ports": [{"port": 80, "targetPort": 8080, "nodePort": 30080}]}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "stream-1", "labels": {"kubernetes.io/service-name": "stream"}},
        "addressType": "IPv4", "endpoints": [{"addresses": [server.ip()]}],
        "ports": [{"port": 8080}]});
    for object in [service, slice] {
        daemon.apply(&object.to_string()).unwrap();
    }
    vswitch_tests::eventually("the NodePort answers", || {
        let to = SocketAddr::from(([192, 0, 2, 1], 30080));
        let connect = move || Ok(TcpStream::connect_timeout(&to, Duration::from_secs(1))?);
        let connected = join(inside(&outside, connect).unwrap());
        connected.map(|_stream| listener.accept().unwrap())
    });
    let to = SocketAddr::from(([192, 0, 2, 1], 30080));
    let (mut near, _far) = download(&outside, &listener, to);
    server.cni("DEL").unwrap().success().unwrap();
    let heard = near.read(&mut [0; 4]).map_err(|error| error.kind());
    assert_eq!(heard, Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_udp_client_that_only_receives_hears_that_its_server_is_gone() {
    let daemon = dual_stack();
    let [client, server] =
        ["client", "server"].map(|name| Pod::named(name).attach(&daemon).unwrap());
    serve_stream(&daemon, &server);
    let far = at(&server.netns, || UdpSocket::bind("[::]:8080"));
    let subscribed = ways(&server).map(|to| {
        let near = at(&client.netns, move || {
            let any = match to {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                SocketAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
            };
            let near = UdpSocket::bind((any, 0))?;
            near.connect(to)?;
            near.set_read_timeout(Some(PATIENCE))?;
            Ok(near)
        });
        near.send(b"subscribe").unwrap();
        let (_, from) = far.recv_from(&mut [0; 16]).unwrap();
        far.send_to(b"part", from).unwrap();
        near.recv(&mut [0; 4]).unwrap();
        (to, near)
    });
    server.cni("DEL").unwrap().success().unwrap();
    for (to, near) in subscribed {
        let heard = near.recv(&mut [0; 4]).map_err(|error| error.kind());
        assert_eq!(heard, Err(ErrorKind::ConnectionRefused), "{to}");
    }
}
