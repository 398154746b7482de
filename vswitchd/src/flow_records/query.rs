//! Which records are asked for.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;
use vswitch_api::v1::{FlowEnd, FlowOf};

use super::connections::ALLOWED;
use super::minute::Counted;
use crate::state::PolicyKey;

/// Records given in an answer, unless it is asked for another number.
const DEFAULT_LIMIT: usize = 1_000;

/// What is asked for; by default everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowQuery {
    /// Only what was dropped, not what policies in audit would deny.
    pub denied: bool,
    /// Connections that were allowed, instead of what was denied.
    pub allowed: bool,
    /// Who began.
    pub from: Option<EndFilter>,
    /// With whom.
    pub to: Option<EndFilter>,
    /// Either.
    pub with: Option<EndFilter>,
    /// A policy that decided, as a record names it, or without its kind.
    pub policy: Option<String>,
    /// Destination port, behind Services.
    pub port: Option<u16>,
    /// Seconds since 1970.
    pub since: Option<u64>,
    /// See `since`.
    pub until: Option<u64>,
    /// Most records.
    pub limit: usize,
}

impl Default for FlowQuery {
    fn default() -> Self {
        Self {
            denied: false,
            allowed: false,
            from: None,
            to: None,
            with: None,
            policy: None,
            port: None,
            since: None,
            until: None,
            limit: DEFAULT_LIMIT,
        }
    }
}

impl FlowQuery {
    /// Returns whether a record with these ends and policies is asked for.
    #[must_use]
    pub fn wants(&self, of: &FlowOf) -> bool {
        let is = |filter: &Option<EndFilter>, end: Option<&FlowEnd>| {
            let filter = filter.as_ref();
            filter.is_none_or(|filter| end.is_some_and(|end| filter.is(end)))
        };
        let (source, destination) = (of.source.as_ref(), of.destination.as_ref());
        let is_by = |wanted: &String| {
            let mut names = of.policies.iter();
            names.any(|name| PolicyKey::is_named(name, wanted))
        };
        let is_allowed = of.verdict == ALLOWED;
        let has_port = |port: u16| of.port == Some(port) && !of.is_icmp();
        self.allowed == is_allowed
            && (!self.denied || of.verdict != "would_deny")
            && self.port.is_none_or(has_port)
            && is(&self.from, source)
            && is(&self.to, destination)
            && (is(&self.with, source) || is(&self.with, destination))
            && self.policy.as_ref().is_none_or(is_by)
    }

    /// Returns whether some of it may have been in the time that is asked for.
    pub(super) fn is_in_time(&self, counted: &Counted) -> bool {
        self.since.is_none_or(|since| counted.last >= since)
            && self.until.is_none_or(|until| counted.first <= until)
    }
}

/// An end that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndFilter {
    /// The node.
    Node,
    /// Addresses.
    Net(IpNet),
    /// The pods of a namespace.
    Namespace(String),
    /// `namespace/name`.
    Pod(String),
}

impl EndFilter {
    fn is(&self, end: &FlowEnd) -> bool {
        let pod = end.pod.as_deref();
        match self {
            Self::Node => end.is_node,
            Self::Net(net) => net.contains(&end.address),
            Self::Namespace(namespace) => pod
                .and_then(|pod| pod.split_once('/'))
                .is_some_and(|(of, _)| of == namespace),
            Self::Pod(name) => pod == Some(name),
        }
    }
}

impl FromStr for EndFilter {
    type Err = String;

    /// Reads `node`, an address or a network, `NAMESPACE/`, `NAMESPACE/POD`, or POD of namespace
    /// default.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "node" {
            return Ok(Self::Node);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Net(address.into()));
        }
        if let Ok(net) = text.parse() {
            return Ok(Self::Net(net));
        }
        match text.split_once('/') {
            None if !text.is_empty() => Ok(Self::Pod(format!("default/{text}"))),
            Some((namespace, "")) if !namespace.is_empty() => {
                Ok(Self::Namespace(namespace.to_owned()))
            }
            Some((namespace, name)) if !namespace.is_empty() && !name.contains('/') => {
                Ok(Self::Pod(text.to_owned()))
            }
            _ => Err(format!(
                "{text:?} is neither `node`, an address, a network, NAMESPACE/, NAMESPACE/POD nor POD"
            )),
        }
    }
}

const DAY: u64 = 86_400;

/// Reads a time, as seconds since 1970: RFC 3339; HH:MM or HH:MM:SS, UTC, in the 24 hours before
/// `now`; or a number with s, m, h or d behind it, before `now`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_time(text: &str, now: u64) -> Result<u64, String> {
    let fail = || {
        format!(
            "{text:?} is no time: write 03:12 or 03:12:30 (UTC), 15m, 2h or 1d (ago), or \
             2026-01-31T03:12:00Z"
        )
    };
    if let Ok(time) = text.parse::<Timestamp>() {
        return u64::try_from(time.as_second()).map_err(|_| fail());
    }
    if text.contains(':') {
        let of_day = second_of_day(text).ok_or_else(fail)?;
        let today = now - now % DAY + of_day;
        return Ok(if today > now {
            today.saturating_sub(DAY)
        } else {
            today
        });
    }
    let unit = text.chars().last().ok_or_else(fail)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => DAY,
        _ => return Err(fail()),
    };
    let count = text.strip_suffix(unit).and_then(digits).ok_or_else(fail)?;
    Ok(now.saturating_sub(count.saturating_mul(seconds)))
}

fn second_of_day(text: &str) -> Option<u64> {
    let mut parts = text.split(':').map(|part| {
        let has_two = part.len() == 2;
        digits(part).filter(|_| has_two)
    });
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    let is_time = hour < 24 && minute < 60 && second < 60 && parts.next().is_none();
    is_time.then_some(hour * 3_600 + minute * 60 + second)
}

/// Parsing alone takes a sign as well.
fn digits(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_the_last_day_before_now_or_whole() {
        // 2026-01-31T03:15:00Z.
        let now = 1_769_829_300;
        assert_eq!(parse_time("2026-01-31T03:15:00Z", 0), Ok(now));
        assert_eq!(parse_time("03:12", now), Ok(now - 180));
        assert_eq!(parse_time("03:12:30", now), Ok(now - 150));
        assert_eq!(parse_time("03:16", now), Ok(now + 60 - DAY), "yesterday");
        assert_eq!(parse_time("15m", now), Ok(now - 900));
        assert_eq!(parse_time("2d", now), Ok(now - 2 * DAY));
        assert_eq!(parse_time("99999999999999999d", now), Ok(0));
        for wrong in [
            "",
            "m",
            "3",
            "24:00",
            "3:12",
            "03:60",
            "03:12:30:1",
            "+5m",
            "-5m",
            "03:+1",
            "ä",
            "1969-01-01T00:00:00Z",
            "99999999999999999999d",
        ] {
            let error = parse_time(wrong, now).unwrap_err();
            assert!(error.contains("is no time"), "{wrong}: {error}");
        }
    }

    #[test]
    fn an_end_is_a_pod_a_namespace_a_network_or_the_node() {
        let end = |pod: Option<&str>, is_node| FlowEnd {
            address: "10.0.0.1".parse().unwrap(),
            pod: pod.map(str::to_owned),
            workload: None,
            is_node,
        };
        let (web, node) = (end(Some("shop/web"), false), end(None, true));
        let is = |text: &str, end: &FlowEnd| text.parse::<EndFilter>().unwrap().is(end);
        for of_web in ["shop/web", "shop/", "10.0.0.1", "10.0.0.0/24"] {
            assert!(is(of_web, &web), "{of_web}");
        }
        for not in ["web", "shop/we", "sho/", "10.0.0.2", "fd00::/8", "node"] {
            assert!(!is(not, &web), "{not}");
        }
        assert!(is("node", &node) && !is("shop/", &node));
        assert!(is("default/a", &end(Some("default/a"), false)));
        assert!(is("a", &end(Some("default/a"), false)));
        for wrong in ["", "/", "/a", "a/b/c"] {
            let error = wrong.parse::<EndFilter>().unwrap_err();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
    }
}
