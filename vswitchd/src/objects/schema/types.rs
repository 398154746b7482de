//! Types of fields, as OpenAPI and its `x-kubernetes-…` extensions describe them.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde_json::Value;

use crate::objects::ResourceInfo;
use crate::objects::resource::CALICO_GROUP;

/// Kubernetes' OpenAPI definitions, by name.
const DEFINITIONS: &str = include_str!("openapi.json");
/// Those of ClusterNetworkPolicy (network-policy-api v0.2.0, experimental channel).
const OF_CLUSTER_POLICIES: &str = include_str!("cluster_network_policy.json");
/// Those of the kinds before it (network-policy-api, v1alpha1, experimental channel).
const OF_ADMINS: &str = include_str!("admin_network_policy.json");
/// Those of Calico's kinds (projectcalico.org/v3).
const OF_CALICO: &str = include_str!("calico.json");

static TYPES: LazyLock<HashMap<String, Type>> = LazyLock::new(|| {
    let definitions = definitions();
    let types = definitions.iter();
    types
        .map(|(name, schema)| (name.clone(), Type::of(name, schema)))
        .collect()
});

/// Returns Kubernetes' OpenAPI definitions of what is served, by name.
pub(crate) fn definitions() -> BTreeMap<String, Value> {
    let parse = |text| -> BTreeMap<String, Value> {
        serde_json::from_str(text).expect("the embedded definitions are JSON")
    };
    let mut definitions = parse(DEFINITIONS);
    definitions.extend(parse(OF_CLUSTER_POLICIES));
    definitions.extend(parse(OF_ADMINS));
    definitions.extend(parse(OF_CALICO));
    definitions
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::objects) enum Type {
    Scalar(Scalar),
    List(Box<List>),
    Map(Box<Map>),
    /// A definition, by its name.
    Named(String),
}

/// Values without parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::objects) enum Scalar {
    String,
    Integer,
    Boolean,
    Number,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    IntOrString,
    Quantity,
    /// Any JSON: the fields of a managedFields entry.
    Json,
}

/// A list, with the way that its elements are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::objects) struct List {
    pub(in crate::objects) items: Type,
    pub(in crate::objects) relation: Relation,
    pub(in crate::objects) strategy: Strategy,
}

/// x-kubernetes-list-type: how server-side apply sees a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::objects) enum Relation {
    /// One value.
    Atomic,
    /// Scalars, each there once.
    Set,
    /// Objects, told apart by these fields (x-kubernetes-list-map-keys).
    Map(Vec<String>),
}

/// x-kubernetes-patch-strategy: how a strategic merge patch sees a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::objects) enum Strategy {
    /// The patch's list takes the place of the old one.
    Replace,
    /// Scalars that are not there yet are added.
    MergeScalars,
    /// Objects are merged by this field (x-kubernetes-patch-merge-key).
    MergeBy(String),
}

/// An object: fields that have names of their own, or values under any name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::objects) struct Map {
    pub(in crate::objects) fields: BTreeMap<String, Field>,
    /// additionalProperties.
    pub(in crate::objects) values: Option<Type>,
    /// x-kubernetes-map-type is atomic: one value to server-side apply.
    pub(in crate::objects) is_atomic: bool,
}

/// A field of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::objects) struct Field {
    pub(in crate::objects) kind: Type,
    /// What an absent field means to the keys of a list.
    pub(in crate::objects) default: Option<Value>,
}

/// Returns the type of a resource's objects.
pub(in crate::objects) fn root(info: &ResourceInfo) -> &'static Type {
    definition(&definition_of(info)).expect("the definitions have every served kind")
}

/// Returns the name of the definition of a resource's objects.
pub(crate) fn definition_of(info: &ResourceInfo) -> String {
    // `networking.k8s.io` is `networking` in the names of its types.
    let group = match info.group {
        "" => "core",
        // The kinds of CRDs are named by their whole group, backwards.
        "policy.networking.k8s.io" => {
            return format!("io.k8s.networking.policy.{}.{}", info.version, info.kind);
        }
        CALICO_GROUP => return format!("org.projectcalico.{}.{}", info.version, info.kind),
        group => group.split('.').next().unwrap_or_default(),
    };
    format!("io.k8s.api.{group}.{}.{}", info.version, info.kind)
}

fn definition(name: &str) -> Option<&'static Type> {
    TYPES.get(name)
}

impl Type {
    fn of(name: &str, schema: &Value) -> Self {
        match name.rsplit('.').next().unwrap_or_default() {
            "Time" => Self::Scalar(Scalar::Time),
            "MicroTime" => Self::Scalar(Scalar::MicroTime),
            "IntOrString" => Self::Scalar(Scalar::IntOrString),
            "Quantity" => Self::Scalar(Scalar::Quantity),
            "FieldsV1" => Self::Scalar(Scalar::Json),
            _ => Self::parse(schema),
        }
    }

    fn parse(schema: &Value) -> Self {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            return Self::Named(name.to_owned());
        }
        match schema["type"].as_str() {
            Some("integer") => Self::Scalar(Scalar::Integer),
            Some("boolean") => Self::Scalar(Scalar::Boolean),
            Some("number") => Self::Scalar(Scalar::Number),
            Some("array") => Self::List(Box::new(List::parse(schema))),
            Some("object") => Self::Map(Box::new(Map::parse(schema))),
            _ => Self::Scalar(Scalar::String),
        }
    }

    /// Follows the name of a definition.
    pub(in crate::objects) fn resolved(&self) -> &Self {
        match self {
            Self::Named(name) => {
                definition(name).expect("every named definition is among the definitions")
            }
            other => other,
        }
    }
}

impl List {
    fn parse(schema: &Value) -> Self {
        let text = |key: &str| schema[key].as_str();
        let merges = text("x-kubernetes-patch-strategy")
            .is_some_and(|strategies| strategies.split(',').any(|one| one == "merge"));
        let strategy = match text("x-kubernetes-patch-merge-key") {
            _ if !merges => Strategy::Replace,
            Some(key) => Strategy::MergeBy(key.to_owned()),
            None => Strategy::MergeScalars,
        };
        let keys = schema["x-kubernetes-list-map-keys"].as_array();
        let keys = keys.into_iter().flatten().filter_map(Value::as_str);
        let relation = match text("x-kubernetes-list-type") {
            Some("set") => Relation::Set,
            Some("map") => Relation::Map(keys.map(str::to_owned).collect()),
            _ => Relation::Atomic,
        };
        Self {
            items: Type::parse(&schema["items"]),
            relation,
            strategy,
        }
    }
}

impl Map {
    fn parse(schema: &Value) -> Self {
        let properties = schema["properties"].as_object();
        let fields = properties.into_iter().flatten().map(|(name, schema)| {
            let field = Field {
                kind: Type::parse(schema),
                default: schema.get("default").cloned(),
            };
            (name.clone(), field)
        });
        Self {
            fields: fields.collect(),
            values: schema.get("additionalProperties").map(Type::parse),
            is_atomic: schema["x-kubernetes-map-type"] == "atomic",
        }
    }

    /// Returns the type of what is under a name; `None` if there is no such field.
    pub(in crate::objects) fn under(&self, name: &str) -> Option<&Type> {
        let field = self.fields.get(name).map(|field| &field.kind);
        field.or(self.values.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::RESOURCES;

    #[test]
    fn every_named_definition_is_there_and_no_reference_says_more_than_its_definition() {
        let definitions = definitions();
        for info in &RESOURCES {
            assert!(matches!(root(info), Type::Map(_)), "{}", info.kind);
        }
        let mut named = 0;
        for (name, schema) in &definitions {
            let properties = schema["properties"].as_object();
            for (field, property) in properties.into_iter().flatten() {
                let items = property.get("items").unwrap_or(&Value::Null);
                for reference in [property, items] {
                    let Some(target) = reference["$ref"].as_str() else {
                        continue;
                    };
                    let target = target.rsplit('/').next().unwrap();
                    assert!(definitions.contains_key(target), "{name}.{field}: {target}");
                    named += 1;
                }
                // `Type::parse` looks no further than the reference.
                if property.get("$ref").is_some() {
                    let more = property.as_object().unwrap().keys();
                    let more: Vec<_> = more.filter(|key| key.starts_with("x-")).collect();
                    assert!(more.is_empty(), "{name}.{field}: {more:?}");
                }
            }
        }
        assert!(named > 200, "{named}");
    }
}
