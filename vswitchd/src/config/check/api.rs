//! The section `[api]`: the unix socket, TCP addresses and who may come in by them.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Checker;
use crate::config::{ApiConfig, RawApi, RawConfig};

/// `sun_path` of `sockaddr_un` less its terminating zero (man 7 unix).
const MAX_SOCKET_PATH: usize = 107;

impl Checker {
    pub(super) fn api(&mut self, raw: &RawConfig) -> ApiConfig {
        let api = &raw.api;
        let socket = self.directory("api.socket", &api.socket);
        self.require(api.socket.len() <= MAX_SOCKET_PATH, "api.socket", || {
            format!("is longer than the {MAX_SOCKET_PATH} bytes of a unix socket's path")
        });
        let mode = u32::from_str_radix(&api.socket_mode, 8)
            .ok()
            .filter(|mode| *mode <= 0o777);
        self.require(mode.is_some(), "api.socket_mode", || {
            format!("{:?} is not an octal mode like \"0660\"", api.socket_mode)
        });
        let token_file = self.file("api.token_file", &api.token_file);
        let member_token_file = self.file("api.member_token_file", &api.member_token_file);
        let is_complete = member_token_file.is_none() || token_file.is_some();
        self.require(is_complete, "api.member_token_file", || {
            "takes api.token_file as well: without one, everybody may do all".to_owned()
        });
        let certificate = self.certificate(api);
        let limit = self.range("api.max_connections", api.max_connections, 1, 65_536);
        ApiConfig {
            socket,
            socket_mode: mode.unwrap_or(0o600),
            tcp_listen: self.tcp_listen(api, token_file.is_some(), certificate.is_some()),
            token_file,
            member_token_file,
            certificate,
            max_connections: usize::try_from(limit).unwrap_or(usize::MAX),
        }
    }

    fn certificate(&mut self, api: &RawApi) -> Option<(PathBuf, PathBuf)> {
        let chain = self.file("api.tls_cert_file", &api.tls_cert_file);
        let key = self.file("api.tls_key_file", &api.tls_key_file);
        self.require(
            chain.is_some() == key.is_some(),
            "api.tls_cert_file",
            || "and api.tls_key_file go together".to_owned(),
        );
        chain.zip(key)
    }

    fn tcp_listen(&mut self, api: &RawApi, has_token: bool, has_tls: bool) -> Vec<SocketAddr> {
        let key = "api.tcp_listen";
        let mut addresses = Vec::new();
        for text in &api.tcp_listen {
            let Ok(address) = text.parse::<SocketAddr>() else {
                self.report(
                    key,
                    format!("{text:?} is not an address like 127.0.0.1:8080"),
                );
                continue;
            };
            let is_private = address.ip().is_loopback();
            self.require(has_token || is_private, key, || {
                format!("{address} can be reached by others; that takes api.token_file")
            });
            self.require(has_tls || is_private || api.allow_plaintext, key, || {
                format!(
                    "{address} can be reached by others; that takes api.tls_cert_file (or \
                     api.allow_plaintext, if something else encrypts what is sent there)"
                )
            });
            self.require(!addresses.contains(&address), key, || {
                format!("{address} is there twice")
            });
            addresses.push(address);
        }
        addresses
    }
}
