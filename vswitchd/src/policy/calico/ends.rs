//! The source and the destination of a rule.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use vswitch_datapath::flow::SetName;

use crate::policy::cidr::subtract;
use crate::policy::direction::Direction;
use crate::policy::expression::{Expression, NAMESPACE, OF_ACCOUNT, OF_NAMESPACE, SERVICE_ACCOUNT};
use crate::policy::json::{self, PartError};
use crate::policy::peers::Members;
use crate::policy::roster::Within;
use crate::policy::tiers::{Demand, SetPrefix};
use crate::state::PolicyKey;

/// A part of a rule, below the rule, that is not understood.
pub(super) type EndError = (String, PartError);

const FIELDS: [&str; 9] = [
    "nets",
    "notNets",
    "selector",
    "notSelector",
    "namespaceSelector",
    "serviceAccounts",
    "services",
    "ports",
    "notPorts",
];

/// Whose rule it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) key: &'a PolicyKey,
    /// `None`: a GlobalNetworkPolicy.
    pub(super) namespace: Option<&'a str>,
    /// Whom the policy selects.
    pub(super) subject: &'a Expression,
}

/// Both ends of a rule: the subject of the policy and its peer.
#[derive(Debug)]
pub(super) struct Ends<'a> {
    subject: End,
    peer: End,
    owner: Owner<'a>,
}

/// What is demanded of one end.
#[derive(Debug)]
struct End {
    /// Whom selectors demand.
    members: Option<Expression>,
    not_members: Option<Expression>,
    /// Networks without the excepted ones.
    networks: Option<BTreeSet<IpNet>>,
    /// Of sets that are this end's alone.
    name: SetName,
}

impl<'a> Ends<'a> {
    /// Reads both; `place` is that of the rule in the policy.
    pub(super) fn parse(
        rule: &Value,
        place: &str,
        direction: Direction,
        owner: Owner<'a>,
    ) -> Result<Self, EndError> {
        let end = |field: &str| {
            let name = format!("{}/{place}/{field}", SetPrefix(owner.key));
            let end = End::parse(&rule[field], SetName(name.into()), owner);
            end.map_err(|(below, error)| (format!(".{field}{below}"), error))
        };
        let (source, destination) = (end("source")?, end("destination")?);
        let (subject, peer) = match direction {
            Direction::Ingress => (destination, source),
            Direction::Egress => (source, destination),
        };
        Ok(Self {
            subject,
            peer,
            owner,
        })
    }

    /// Returns what is demanded of subject and peer, `None` if nobody can meet it; `is_named`: the
    /// peer is found by the name of a port, which only pods have.
    pub(super) fn demands(&self, is_named: bool) -> Option<(Demand, Demand)> {
        let is_empty = |end: &End| end.networks.as_ref().is_some_and(BTreeSet::is_empty);
        if is_empty(&self.subject) || is_empty(&self.peer) {
            return None;
        }
        Some((
            self.subject.of_subject(self.owner),
            self.peer.of_peer(is_named),
        ))
    }
}

impl End {
    /// The subject is a pod of this node, whatever else is demanded.
    fn of_subject(&self, owner: Owner<'_>) -> Demand {
        if self.members.is_none() && self.not_members.is_none() {
            return self.within().map_or(Demand::Anyone, Demand::Networks);
        }
        let of_policy = [owner.subject.clone()].into_iter();
        self.members(of_policy.chain(self.selected()), true)
    }

    fn of_peer(&self, is_named: bool) -> Demand {
        match (&self.members, &self.not_members) {
            (None, None) => self.within().map_or(Demand::Anyone, Demand::Networks),
            (None, Some(not)) if !is_named => {
                let members = Members::Selected {
                    expression: not.clone(),
                    is_here: false,
                };
                Demand::Outside(members, self.within().unwrap_or_else(|| self.everywhere()))
            }
            _ => self.members(self.selected(), false),
        }
    }

    /// Returns what selectors say.
    fn selected(&self) -> impl Iterator<Item = Expression> {
        let not = self.not_members.clone();
        let not = not.map(|not| Expression::Not(Box::new(not)));
        self.members.clone().into_iter().chain(not)
    }

    fn members(&self, all: impl Iterator<Item = Expression>, is_here: bool) -> Demand {
        let members = Members::Selected {
            expression: Expression::all_of(all.collect()),
            is_here,
        };
        match self.within() {
            None => Demand::Members(members),
            Some(within) => Demand::MembersWithin(members, within),
        }
    }

    fn within(&self) -> Option<Within> {
        let networks = self.networks.clone()?;
        let name = self.name.clone();
        Some(Within { name, networks })
    }

    fn everywhere(&self) -> Within {
        Within {
            name: self.name.clone(),
            networks: all_networks(&[true, false]),
        }
    }

    fn parse(written: &Value, name: SetName, owner: Owner<'_>) -> Result<Self, EndError> {
        if written.is_null() {
            return Ok(Self {
                members: None,
                not_members: None,
                networks: None,
                name,
            });
        }
        if !written["services"].is_null() {
            return Err((".services".to_owned(), PartError::Services));
        }
        json::object(written, &FIELDS).map_err(|error| (String::new(), error))?;
        let selector = |field: &'static str| -> Result<Option<Expression>, EndError> {
            optional_selector(&written[field]).map_err(|error| (format!(".{field}"), error))
        };
        let not_members = selector("notSelector")?;
        let accounts = accounts(&written["serviceAccounts"])?;
        let mut selected: Vec<Expression> = Vec::new();
        let own = selector("selector")?;
        let of_namespaces = selector("namespaceSelector")?;
        let says_something = own.is_some() || not_members.is_some() || accounts.is_some();
        let is_limited = of_namespaces.is_some();
        selected.extend(own);
        selected.extend(accounts);
        selected.extend(of_namespaces.map(|of| of.renamed(OF_NAMESPACE, NAMESPACE)));
        if let Some(namespace) = owner.namespace
            && says_something
            && !is_limited
        {
            selected.push(Expression::in_namespace(namespace));
        }
        Ok(Self {
            members: (!selected.is_empty()).then(|| Expression::all_of(selected)),
            not_members,
            networks: networks(written)?,
            name,
        })
    }
}

/// Reads a selector, if there is one.
pub(super) fn optional_selector(written: &Value) -> Result<Option<Expression>, PartError> {
    let parsed = json::optional_text(written)?
        .map(Expression::parse)
        .transpose();
    parsed.map_err(|error| PartError::Selector(error.to_string()))
}

/// `serviceAccounts`: by name and by their labels.
fn accounts(written: &Value) -> Result<Option<Expression>, EndError> {
    let at = |below: &str, error| (format!(".serviceAccounts{below}"), error);
    if written.is_null() {
        return Ok(None);
    }
    let fields = json::object(written, &["names", "selector"]).map_err(|error| at("", error))?;
    let selector = fields.get("selector").unwrap_or(&Value::Null);
    let selector = optional_selector(selector).map_err(|error| at(".selector", error))?;
    let selector = selector.map(|of| of.renamed(OF_ACCOUNT, SERVICE_ACCOUNT));
    let names = fields.get("names").unwrap_or(&Value::Null);
    let names = json::texts(names).map_err(|error| at(".names", error))?;
    let names = names
        .into_iter()
        .map(str::to_owned)
        .collect::<BTreeSet<_>>();
    let names = (!names.is_empty()).then(|| Expression::In(SERVICE_ACCOUNT.to_owned(), names));
    // Without either it is any service account: every pod has one.
    let any = (names.is_none() && selector.is_none())
        .then(|| Expression::Has(SERVICE_ACCOUNT.to_owned()));
    let parts = names.into_iter().chain(selector).chain(any);
    Ok(Some(Expression::all_of(parts.collect())))
}

/// `nets` without `notNets`. A list of one family's networks is about that family only.
fn networks(written: &Value) -> Result<Option<BTreeSet<IpNet>>, EndError> {
    let read = |field: &'static str| -> Result<Option<Vec<IpNet>>, EndError> {
        let at = |error| (format!(".{field}"), error);
        let texts = json::texts(&written[field]).map_err(at)?;
        let nets = texts
            .into_iter()
            .map(network)
            .collect::<Result<Vec<_>, _>>();
        nets.map(|nets| (!nets.is_empty()).then_some(nets))
            .map_err(at)
    };
    let (nets, except) = (read("nets")?, read("notNets")?);
    let families = |of: &[IpNet]| -> Vec<bool> { of.iter().map(|n| n.addr().is_ipv4()).collect() };
    let all = match (&nets, &except) {
        (None, None) => return Ok(None),
        (Some(nets), None) => nets.clone(),
        (None, Some(except)) => all_networks(&families(except)).into_iter().collect(),
        (Some(nets), Some(except)) => {
            let families = families(except);
            let nets = nets.iter().copied();
            nets.filter(|net| families.contains(&net.addr().is_ipv4()))
                .collect()
        }
    };
    let except = except.unwrap_or_default();
    let mut left = Vec::new();
    for net in IpNet::aggregate(&all) {
        subtract(net, &except, &mut left);
    }
    Ok(Some(left.into_iter().collect()))
}

/// Reads a network, or an address; host bits are cut off.
fn network(text: &str) -> Result<IpNet, PartError> {
    let network = text.parse::<IpNet>().map(|network| network.trunc());
    let network = network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| PartError::Network {
        text: text.to_owned(),
    })
}

/// Returns all addresses of these families; `true`: IPv4.
fn all_networks(families: &[bool]) -> BTreeSet<IpNet> {
    let of = |is_ipv4: &bool| {
        if *is_ipv4 {
            IpNet::from(ipnet::Ipv4Net::default())
        } else {
            IpNet::from(ipnet::Ipv6Net::default())
        }
    };
    families.iter().map(of).collect()
}
