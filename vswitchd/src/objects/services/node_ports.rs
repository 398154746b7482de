//! NodePorts, and the port for health checks.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::causes::Causes;
use super::super::shelf::Shelf;
use super::super::{RegistryConfig, StatusError};
use super::{exhausted, needs_health_check_port, needs_node_ports, others, start_of};

/// Completes spec.ports[].nodePort and spec.healthCheckNodePort.
pub(super) fn allocate(
    config: &RegistryConfig,
    shelf: &Shelf,
    old: Option<&Value>,
    service: &mut Value,
    causes: &mut Causes,
) -> Result<(), StatusError> {
    if !needs_node_ports(&service["spec"]) {
        return Ok(());
    }
    let mut search = Search {
        config,
        used: others(shelf, service)
            .flat_map(|other| taken(&other["spec"]))
            .collect(),
        kept: old.map_or_else(BTreeSet::new, |old| taken(&old["spec"])),
    };
    search.check(&service["spec"], causes);
    // What the Service names itself is not given to its other ports.
    search.used.extend(taken(&service["spec"]));
    search.complete(service)
}

/// All ports on the node that a Service has. The protocol does not matter between Services,
/// only one Service may use a number for several protocols.
fn taken(spec: &Value) -> BTreeSet<i64> {
    let ports = spec["ports"].as_array().into_iter().flatten();
    let numbers = ports.filter_map(|port| port["nodePort"].as_i64());
    numbers
        .chain(spec["healthCheckNodePort"].as_i64())
        .collect()
}

struct Search<'a> {
    config: &'a RegistryConfig,
    used: BTreeSet<i64>,
    /// The Service's own until now.
    kept: BTreeSet<i64>,
}

impl Search<'_> {
    fn check(&self, spec: &Value, causes: &mut Causes) {
        let ports = spec["ports"].as_array().into_iter().flatten().enumerate();
        for (index, port) in ports {
            let field = format!("spec.ports[{index}].nodePort");
            self.check_one(&port["nodePort"], &field, causes);
        }
        let health = &spec["healthCheckNodePort"];
        self.check_one(health, "spec.healthCheckNodePort", causes);
        let mut ports = spec["ports"].as_array().into_iter().flatten();
        if health.is_number() && ports.any(|port| port["nodePort"] == *health) {
            let why = "provided port is already allocated";
            causes.invalid("spec.healthCheckNodePort", health, why);
        }
    }

    fn check_one(&self, value: &Value, field: &str, causes: &mut Causes) {
        let Some(number) = value.as_i64() else { return };
        if self.used.contains(&number) {
            causes.invalid(field, value, "provided port is already allocated");
        } else if !self.kept.contains(&number) && !self.is_in_range(number) {
            let (first, last) = (self.config.node_ports.start(), self.config.node_ports.end());
            let why = format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            );
            causes.invalid(field, value, why);
        }
    }

    fn is_in_range(&self, number: i64) -> bool {
        u16::try_from(number).is_ok_and(|number| self.config.node_ports.contains(&number))
    }

    fn complete(&mut self, service: &mut Value) -> Result<(), StatusError> {
        if service["spec"]["allocateLoadBalancerNodePorts"] != false {
            let count = service["spec"]["ports"].as_array().map_or(0, Vec::len);
            for index in 0..count {
                let port = &service["spec"]["ports"][index];
                if port["nodePort"].is_null() {
                    let what = format!("{}/{}", port["port"], port["protocol"]);
                    let number = self.next(start_of(service, &what))?;
                    service["spec"]["ports"][index]["nodePort"] = json!(number);
                }
            }
        }
        let spec = &service["spec"];
        if needs_health_check_port(spec) && spec["healthCheckNodePort"].is_null() {
            let number = self.next(start_of(service, "health"))?;
            service["spec"]["healthCheckNodePort"] = json!(number);
        }
        Ok(())
    }

    fn next(&mut self, start: u64) -> Result<i64, StatusError> {
        let first = i64::from(*self.config.node_ports.start());
        let count = i64::from(*self.config.node_ports.end()) - first + 1;
        let start = i64::try_from(start).unwrap_or(0);
        let free = (0..count)
            .map(|step| first + (start + step) % count)
            .find(|number| !self.used.contains(number));
        let number = free.ok_or_else(|| exhausted("nodePort"))?;
        self.used.insert(number);
        Ok(number)
    }
}
