//! An ipBlock as a list of networks: the block without its exceptions.

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::IPBlock;

/// Why an ipBlock means nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum IpBlockError {
    #[error("cidr {text:?} is not a network like 10.0.0.0/8")]
    Cidr { text: String },
    #[error("except {text:?} is not a network like 10.0.0.0/8")]
    Except { text: String },
    #[error("except {except} is not inside {cidr}")]
    ExceptOutside { cidr: IpNet, except: IpNet },
}

/// Returns the networks that make up the block.
pub(super) fn networks(block: &IPBlock) -> Result<Vec<IpNet>, IpBlockError> {
    let cidr = parse(&block.cidr).ok_or_else(|| IpBlockError::Cidr {
        text: block.cidr.clone(),
    })?;
    let mut excepts = Vec::new();
    for text in block.except.iter().flatten() {
        let except = parse(text).ok_or_else(|| IpBlockError::Except { text: text.clone() })?;
        if !cidr.contains(&except) {
            return Err(IpBlockError::ExceptOutside { cidr, except });
        }
        excepts.push(except);
    }
    let mut left = Vec::new();
    subtract(cidr, &excepts, &mut left);
    Ok(left)
}

/// Parses a network; host bits are cut off, as Kubernetes accepted them in the past.
fn parse(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().map(|net| net.trunc())
}

/// Halves the network until each part lies wholly outside or inside the exceptions.
pub(super) fn subtract(net: IpNet, excepts: &[IpNet], left: &mut Vec<IpNet>) {
    if excepts.iter().any(|except| except.contains(&net)) {
        return;
    }
    let inside: Vec<IpNet> = excepts
        .iter()
        .copied()
        .filter(|e| net.contains(e))
        .collect();
    if inside.is_empty() {
        left.push(net);
        return;
    }
    // A network that strictly contains another is shorter than a single address.
    for half in net.subnets(net.prefix_len() + 1).into_iter().flatten() {
        subtract(half, &inside, left);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    fn block(cidr: &str, except: &[&str]) -> IPBlock {
        let except = except.iter().map(|e| (*e).to_owned()).collect();
        IPBlock {
            cidr: cidr.to_owned(),
            except: Some(except),
        }
    }

    fn texts(cidr: &str, except: &[&str]) -> Vec<String> {
        networks(&block(cidr, except))
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_block_without_exceptions_is_itself() {
        assert_eq!(texts("10.1.0.0/16", &[]), ["10.1.0.0/16"]);
        assert_eq!(texts("0.0.0.0/0", &[]), ["0.0.0.0/0"]);
        assert_eq!(texts("2001:db8::1/32", &[]), ["2001:db8::/32"]);
    }

    #[test]
    fn exceptions_are_cut_out_of_the_block() {
        assert_eq!(
            texts("10.0.0.0/30", &["10.0.0.1/32"]),
            ["10.0.0.0/32", "10.0.0.2/31"]
        );
        assert_eq!(
            texts("10.0.0.0/30", &["10.0.0.0/31", "10.0.0.1/32"]),
            ["10.0.0.2/31"]
        );
        assert_eq!(texts("fd00::/126", &["fd00::/127"]), ["fd00::2/127"]);
        assert!(texts("10.0.0.0/30", &["10.0.0.0/30"]).is_empty());
    }

    #[test]
    fn one_address_out_of_everything_takes_one_network_per_bit() {
        assert_eq!(texts("::/0", &["fd00::1/128"]).len(), 128);
    }

    #[test]
    fn blocks_that_mean_nothing_are_refused() {
        for (cidr, except) in [
            ("10.0.0.0", &[][..]),
            ("10.0.0.0/33", &[]),
            ("", &[]),
            ("10.0.0.0/8", &["x"]),
            ("10.0.0.0/8", &["11.0.0.0/16"]),
            ("10.0.0.0/8", &["fd00::/64"]),
            ("10.0.0.0/16", &["10.0.0.0/8"]),
        ] {
            assert!(networks(&block(cidr, except)).is_err(), "{cidr} {except:?}");
        }
    }

    proptest! {
        #[test]
        fn an_address_is_left_if_it_is_in_the_block_and_in_no_exception(
            base in 0u32..256,
            len in 24u8..=32,
            excepts in prop::collection::vec((0u32..256, 24u8..=32), 0..5),
            probe in 0u32..256,
        ) {
            let net = |host: u32, len: u8| {
                let ip = Ipv4Addr::from(0x0a00_0000 | host);
                IpNet::new(IpAddr::V4(ip), len).unwrap().trunc()
            };
            let cidr = net(base, len);
            let excepts: Vec<IpNet> =
                excepts.into_iter().map(|(h, l)| net(h, l)).filter(|e| cidr.contains(e)).collect();
            let text: Vec<String> = excepts.iter().map(ToString::to_string).collect();
            let text: Vec<&str> = text.iter().map(String::as_str).collect();
            let left = networks(&block(&cidr.to_string(), &text)).unwrap();
            let ip = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | probe));
            let expected = cidr.contains(&ip) && !excepts.iter().any(|e| e.contains(&ip));
            prop_assert_eq!(left.iter().any(|n| n.contains(&ip)), expected);
        }
    }
}
