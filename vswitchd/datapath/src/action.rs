//! Actions of a rule, and the text form of action lists.

use std::fmt;

use vswitch_api::{MacAddr, PortNo};

use crate::drop_reason::DropReason;
use crate::flow::{PortClass, split_fields};
use crate::group::GroupId;
use crate::table_id::TableId;

/// One step of a rule; a rule that decides nothing ([`Action::decides`]) drops with its table's
/// default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Continue in a later table (tables only go up).
    Goto(TableId),
    /// End here and count the reason.
    Drop(DropReason),
    /// End here and count the reason, and tell the sender: TCP by a reset, all else by ICMP
    /// administratively prohibited, where the standards allow an answer. Answers are limited
    /// in rate.
    Reject(DropReason),
    /// Table 0: state what hangs on the in port.
    SetClass(PortClass),
    /// Write the destination MAC.
    SetEthDst(MacAddr),
    /// Write the source MAC.
    SetEthSrc(MacAddr),
    /// Choose the port to leave through (sent in the Output step).
    SetOutPort(PortNo),
    /// Track: look the packet up in the connection table and set `ct_state`. Entering the
    /// Conntrack table does it as well, where it was not done before.
    CtLookup,
    /// Commit the connection if it is new.
    CtCommit,
    /// Give a new connection an endpoint of the group and translate its destination; one that
    /// is there keeps what it has.
    Group(GroupId),
    /// Send to the chosen out port.
    Output,
    /// Answer an ARP request: the asked address is at this MAC.
    ArpReply(MacAddr),
    /// Answer a neighbour solicitation: the target is at this MAC.
    NdAdvertise(MacAddr),
    /// Send a copy of the frame, as it stands here, to a mirror port.
    Mirror(PortNo),
    /// Send here at once, past the other tables (admin redirect).
    Redirect(PortNo),
    /// Let at most this many packets per second through, `burst` at once; drop the rest.
    RateLimit {
        /// Packets per second.
        rate_pps: u32,
        /// Bucket depth in packets.
        burst: u32,
    },
}

impl Action {
    /// Returns whether the action decides what becomes of the packet in this table, so that
    /// nothing behind it is done.
    #[must_use]
    pub const fn decides(&self) -> bool {
        matches!(
            self,
            Self::Goto(_)
                | Self::Drop(_)
                | Self::Reject(_)
                | Self::Output
                | Self::Redirect(_)
                | Self::ArpReply(_)
                | Self::NdAdvertise(_)
        )
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Goto(table) => write!(f, "goto_table:{}", table.number()),
            Self::Drop(reason) => write!(f, "drop({reason})"),
            Self::Reject(reason) => write!(f, "reject({reason})"),
            Self::SetClass(class) => write!(f, "set_class:{class}"),
            Self::SetEthDst(mac) => write!(f, "set_field:{mac}->eth_dst"),
            Self::SetEthSrc(mac) => write!(f, "set_field:{mac}->eth_src"),
            Self::SetOutPort(port) => write!(f, "output:{port}"),
            Self::CtLookup => f.write_str("ct"),
            Self::CtCommit => f.write_str("ct(commit)"),
            Self::Group(GroupId(id)) => write!(f, "group:{id}"),
            Self::Output => f.write_str("output"),
            Self::ArpReply(mac) => write!(f, "arp_reply({mac})"),
            Self::NdAdvertise(mac) => write!(f, "nd_advertise({mac})"),
            Self::Mirror(port) => write!(f, "mirror:{port}"),
            Self::Redirect(port) => write!(f, "redirect:{port}"),
            Self::RateLimit { rate_pps, burst } => {
                write!(f, "rate_limit(pps={rate_pps},burst={burst})")
            }
        }
    }
}

/// An action list as text: what [`parse_actions`] reads.
#[derive(Debug, Clone, Copy)]
pub struct ActionList<'a>(pub &'a [Action]);

impl fmt::Display for ActionList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, action) in self.0.iter().enumerate() {
            write!(f, "{}{action}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Text that is not an action list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionSyntaxError {
    /// No action has this name.
    #[error("{token:?} names no action")]
    UnknownAction {
        /// The token as written.
        token: String,
    },
    /// The action exists, its argument is not one.
    #[error("the argument in {token:?} is not {expected}")]
    BadArgument {
        /// The token as written.
        token: String,
        /// What stands there in a good token.
        expected: &'static str,
    },
    /// No action at all; write `drop` to drop.
    #[error("an action list holds at least one action")]
    Empty,
}

/// Reads a comma-separated action list such as `mirror:4,goto_table:40`; `drop` alone means
/// `drop(admin_drop)`, and `reject` likewise.
///
/// # Errors
///
/// Names the first token that is no action.
pub fn parse_actions(text: &str) -> Result<Vec<Action>, ActionSyntaxError> {
    let actions = split_fields(text)
        .map(parse_action)
        .collect::<Result<Vec<_>, _>>()?;
    if actions.is_empty() {
        Err(ActionSyntaxError::Empty)
    } else {
        Ok(actions)
    }
}

fn parse_action(token: &str) -> Result<Action, ActionSyntaxError> {
    let (name, argument) = split_argument(token);
    let parsed = match name {
        "goto_table" => argument
            .and_then(table)
            .map(Action::Goto)
            .ok_or("a table number"),
        "drop" => reason(argument).map(Action::Drop).ok_or("a drop reason"),
        "reject" => reason(argument).map(Action::Reject).ok_or("a drop reason"),
        "set_class" => argument
            .and_then(PortClass::from_name)
            .map(Action::SetClass)
            .ok_or("a port class"),
        "set_field" => argument
            .and_then(set_field)
            .ok_or("MAC->eth_dst or MAC->eth_src"),
        "output" => match argument {
            None => Ok(Action::Output),
            Some(text) => port(text).map(Action::SetOutPort).ok_or("a port number"),
        },
        "ct" => match argument {
            None => Ok(Action::CtLookup),
            Some("commit") => Ok(Action::CtCommit),
            Some(_) => Err("commit"),
        },
        "group" => argument
            .and_then(|id| id.parse().ok())
            .map(|id| Action::Group(GroupId(id)))
            .ok_or("a group number"),
        "arp_reply" => argument
            .and_then(mac)
            .map(Action::ArpReply)
            .ok_or("an Ethernet address"),
        "nd_advertise" => argument
            .and_then(mac)
            .map(Action::NdAdvertise)
            .ok_or("an Ethernet address"),
        "mirror" => argument
            .and_then(port)
            .map(Action::Mirror)
            .ok_or("a port number"),
        "redirect" => argument
            .and_then(port)
            .map(Action::Redirect)
            .ok_or("a port number"),
        "rate_limit" => argument
            .and_then(rate_limit)
            .ok_or("pps=N,burst=N, both above 0"),
        _ => {
            return Err(ActionSyntaxError::UnknownAction {
                token: token.to_owned(),
            });
        }
    };
    parsed.map_err(|expected| ActionSyntaxError::BadArgument {
        token: token.to_owned(),
        expected,
    })
}

/// Splits `name:argument` and `name(argument)`; a missing `)` leaves a name that no action has.
fn split_argument(token: &str) -> (&str, Option<&str>) {
    match token.find([':', '(']) {
        Some(at) if token.get(at..).is_some_and(|rest| rest.starts_with(':')) => {
            (token.get(..at).unwrap_or_default(), token.get(at + 1..))
        }
        Some(at) => match token.get(at + 1..).and_then(|rest| rest.strip_suffix(')')) {
            Some(argument) => (token.get(..at).unwrap_or_default(), Some(argument)),
            None => (token, None),
        },
        None => (token, None),
    }
}

/// Returns the reason that is named; without a name the operator's.
fn reason(argument: Option<&str>) -> Option<DropReason> {
    argument.map_or(Some(DropReason::AdminDrop), DropReason::from_name)
}

fn table(text: &str) -> Option<TableId> {
    let by_name = || TableId::ALL.into_iter().find(|table| table.name() == text);
    text.parse()
        .ok()
        .and_then(TableId::from_number)
        .or_else(by_name)
}

fn port(text: &str) -> Option<PortNo> {
    text.parse().ok().filter(|no| *no != 0).map(PortNo)
}

fn mac(text: &str) -> Option<MacAddr> {
    text.parse().ok()
}

fn set_field(text: &str) -> Option<Action> {
    let (value, field) = text.split_once("->")?;
    match field {
        "eth_dst" | "dl_dst" => mac(value).map(Action::SetEthDst),
        "eth_src" | "dl_src" => mac(value).map(Action::SetEthSrc),
        _ => None,
    }
}

fn rate_limit(text: &str) -> Option<Action> {
    let (mut rate_pps, mut burst) = (None, None);
    for field in text.split(',') {
        let (name, value) = field.trim().split_once('=')?;
        let value = value.parse::<u32>().ok().filter(|n| *n != 0)?;
        match name {
            "pps" => rate_pps = Some(value),
            "burst" => burst = Some(value),
            _ => return None,
        }
    }
    Some(Action::RateLimit {
        rate_pps: rate_pps?,
        burst: burst?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_survives_text() {
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let mut actions = vec![
            Action::SetEthDst(mac),
            Action::SetEthSrc(mac),
            Action::SetOutPort(PortNo(3)),
            Action::CtLookup,
            Action::CtCommit,
            Action::Group(GroupId(7)),
            Action::Output,
            Action::ArpReply(mac),
            Action::NdAdvertise(mac),
            Action::Mirror(PortNo(4)),
            Action::Redirect(PortNo(5)),
            Action::RateLimit {
                rate_pps: 100,
                burst: 20,
            },
        ];
        actions.extend(TableId::ALL.map(Action::Goto));
        actions.extend(PortClass::ALL.map(Action::SetClass));
        actions.extend(DropReason::ALL.iter().copied().map(Action::Drop));
        actions.extend(DropReason::ALL.iter().copied().map(Action::Reject));
        let text = ActionList(&actions).to_string();
        assert_eq!(parse_actions(&text), Ok(actions));
    }

    #[test]
    fn a_lone_drop_or_reject_is_the_operators() {
        let reason = DropReason::AdminDrop;
        assert_eq!(parse_actions("drop"), Ok(vec![Action::Drop(reason)]));
        assert_eq!(parse_actions("reject"), Ok(vec![Action::Reject(reason)]));
    }

    #[test]
    fn a_reject_names_its_reason_as_a_drop_does_and_decides() {
        let rejects = Action::Reject(DropReason::PolicyIngress);
        assert_eq!(rejects.to_string(), "reject(policy_ingress)");
        assert_eq!(parse_actions("reject(policy_ingress)"), Ok(vec![rejects]));
        assert!(rejects.decides());
    }

    #[test]
    fn tables_go_by_number_and_by_name() {
        assert_eq!(
            parse_actions("goto_table:Conntrack"),
            parse_actions("goto_table:40")
        );
    }

    #[test]
    fn errors_name_the_offending_token() {
        for token in [
            "jump",
            "goto_table:41",
            "drop(because)",
            "reject(because)",
            "reject()",
            "drop(admin_drop",
            "set_field:02:00:00:00:00:01->eth_typ",
            "output:0",
            "output:x",
            "ct(nat)",
            "group:web",
            "arp_reply(no)",
            "mirror",
            "rate_limit(pps=0,burst=1)",
            "rate_limit(pps=5)",
            "rate_limit(pps=1,burst=1,x=1)",
        ] {
            let error = parse_actions(&format!("output,{token}"))
                .unwrap_err()
                .to_string();
            assert!(error.contains(&format!("{token:?}")), "{token}: {error}");
        }
        assert_eq!(parse_actions(" , "), Err(ActionSyntaxError::Empty));
    }
}
