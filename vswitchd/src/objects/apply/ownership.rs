//! What writes change in the ownership of fields.

use serde_json::{Value, json};

use super::field_set::{FieldSet, Step};
use super::managers::{Managed, Managers, Writer};
use super::typed::{check, compare, fields_of, merged, with_objects, without};
use crate::objects::schema::{Type, root};
use crate::objects::{ResourceInfo, StatusCause, StatusError};

/// Who owns what was there before anybody applied anything.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The manager of `kubectl apply --server-side`, which may take over what its client-side apply
/// set before.
const KUBECTL: &str = "kubectl";

/// Where client-side apply keeps what it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An applied configuration: the object that it makes, and who owns what of it.
#[derive(Debug)]
pub(in crate::objects) struct Applied {
    /// The object, without `managedFields`.
    pub(in crate::objects) object: Value,
    managers: Managers,
}

/// Applies a configuration to the live object, or to nothing.
///
/// # Errors
/// 400 for a configuration that is none, 409 if it would change what others set.
pub(in crate::objects) fn applied(
    info: &ResourceInfo,
    live: Option<&Value>,
    config: &Value,
    writer: &Writer,
    force: bool,
) -> Result<Applied, StatusError> {
    let kind = root(info);
    check_config(info, kind, config)?;
    let nothing = json!({});
    let live = live.unwrap_or(&nothing);
    let mut managers = decode(live);
    let live = without_entries(live);
    if managers.0.is_empty() && live != nothing {
        let first = Writer {
            manager: BEFORE_FIRST_APPLY.to_owned(),
            applies: false,
            api_version: info.api_version(),
            is_status: false,
        };
        let all = compare(Some(kind), Some(&blank()), Some(&live)).set();
        let fields = kept(all.clone(), false).union(&kept(all, true));
        let time = String::new();
        managers.0.insert(first, Managed { fields, time });
    }
    let result = apply_with(kind, &live, config, &managers, writer, force);
    let conflicts = match result {
        Ok(applied) => return Ok(with_last_applied(applied, &live, config, writer)),
        Err(conflicts) => conflicts,
    };
    let conflicts = if writer.manager == KUBECTL {
        let allowed = applied_by_client(kind, &live);
        let rest = conflicts.into_iter().map(|(writer, fields)| {
            let fields = fields.difference(&allowed);
            (writer, fields)
        });
        rest.filter(|(_, fields)| !fields.is_empty()).collect()
    } else {
        conflicts
    };
    if conflicts.is_empty() {
        let forced = apply_with(kind, &live, config, &managers, writer, true);
        let applied = forced.map_err(|conflicts| conflict(&managers, &conflicts))?;
        return Ok(with_last_applied(applied, &live, config, writer));
    }
    Err(conflict(&managers, &conflicts))
}

type Conflicts = Vec<(Writer, FieldSet)>;

fn apply_with(
    kind: &Type,
    live: &Value,
    config: &Value,
    managers: &Managers,
    writer: &Writer,
    force: bool,
) -> Result<Applied, Conflicts> {
    let mut managers = managers.clone();
    // Whoever applied in another version is the same applier.
    let same = |other: &Writer| {
        other.applies && other.manager == writer.manager && other.is_status == writer.is_status
    };
    let last: Vec<Writer> = managers
        .0
        .keys()
        .filter(|other| same(other))
        .cloned()
        .collect();
    let last = last
        .into_iter()
        .filter_map(|writer| managers.0.remove(&writer));
    let last = last.fold(Managed::default(), |all, one| Managed {
        fields: all.fields.union(&one.fields),
        time: one.time,
    });
    // The name of the object is in the configuration, though nobody owns it: with it stays what
    // the server set beside it.
    let named = fields_of(Some(kind), config);
    let config_fields = kept(named.clone(), writer.is_status);
    let mut object = merged(Some(kind), live, config);
    if !last.fields.is_empty() {
        let others = managers.0.values().map(|managed| &managed.fields);
        let owned = others.fold(named, |all, one| all.union(one));
        object = pruned(kind, &object, &last.fields, &owned);
    }
    let difference = compare(Some(kind), Some(live), Some(&object));
    let changed = difference.set();
    let mut conflicts = Conflicts::new();
    for (other, managed) in &mut managers.0 {
        let fields = managed.fields.intersection(&changed);
        managed.fields = managed
            .fields
            .difference(&fields)
            .difference(&difference.removed);
        if !fields.is_empty() {
            conflicts.push((other.clone(), fields));
        }
    }
    if !force && !conflicts.is_empty() {
        return Err(conflicts);
    }
    // Who says the same again leaves no trace.
    let is_same = object == *live && last.fields == config_fields;
    let time = if is_same {
        last.time
    } else {
        crate::objects::now()
    };
    let fields = config_fields;
    managers.0.insert(writer.clone(), Managed { fields, time });
    Ok(Applied { object, managers })
}

/// Takes away what was applied last time and is owned by nobody now.
fn pruned(kind: &Type, object: &Value, last: &FieldSet, owned: &FieldSet) -> Value {
    let kind = Some(kind);
    let all = |set: &FieldSet| with_objects(kind, set);
    let last = all(last);
    let nothing = || json!({});
    let candidate = without(kind, object, &last).unwrap_or_else(nothing);
    // What others own comes back, and what nobody applied: it was never this manager's.
    let fields = all(&fields_of(kind, object));
    let left = all(&fields_of(kind, &candidate));
    let doomed = fields.difference(&left.union(&all(owned)));
    let candidate = without(kind, object, &doomed).unwrap_or_else(nothing);
    let left = all(&fields_of(kind, &candidate));
    let doomed = fields.difference(&left).intersection(&last);
    without(kind, object, &doomed).unwrap_or_else(nothing)
}

/// Records in the new object that the writer changed what differs from the old one. The new
/// object may bring entries of its own.
pub(in crate::objects) fn record(
    info: &ResourceInfo,
    old: Option<&Value>,
    new: &mut Value,
    writer: &Writer,
) {
    let kind = root(info);
    let given = new["metadata"]["managedFields"].take();
    remove_entries(new);
    let mut managers = match (old, given_managers(&given, writer.is_status)) {
        (_, Some(managers)) => managers,
        (Some(old), None) => decode(old),
        (None, None) => Managers::default(),
    };
    let before = old.map_or_else(blank, without_entries);
    let difference = compare(Some(kind), Some(&before), Some(new));
    let changed = kept(difference.set(), writer.is_status);
    let gone = changed.union(&difference.removed);
    for managed in managers.0.values_mut() {
        managed.fields = managed.fields.difference(&gone);
    }
    if !changed.is_empty() {
        let own = managers.0.entry(writer.clone()).or_default();
        own.fields = own.fields.union(&changed);
        own.time = crate::objects::now();
    }
    set_entries(new, &managers.tidied());
}

impl Applied {
    /// Records the ownership in the object that was made of [`Self::object`].
    pub(in crate::objects) fn record(self, object: &mut Value) {
        set_entries(object, &self.managers.tidied());
    }
}

/// Entries that a client wrote: none if it knows of none, an empty set if it wants to be rid of
/// them, which `[{}]` says.
fn given_managers(given: &Value, is_status: bool) -> Option<Managers> {
    let list = given
        .as_array()
        .filter(|list| !list.is_empty() && !is_status)?;
    let is_reset = list.len() == 1 && is_blank(&list[0]);
    if is_reset {
        return Some(Managers::default());
    }
    Managers::decode(given).ok()
}

fn is_blank(entry: &Value) -> bool {
    entry.as_object().is_some_and(|fields| {
        let mut values = fields.values();
        values.all(|value| value.is_null() || value == "")
    })
}

/// An object before anything is said of it.
fn blank() -> Value {
    json!({"metadata": {}, "spec": {}, "status": {}})
}

/// Entries that cannot be read count as none.
fn decode(object: &Value) -> Managers {
    Managers::decode(&object["metadata"]["managedFields"]).unwrap_or_default()
}

fn without_entries(object: &Value) -> Value {
    let mut object = object.clone();
    remove_entries(&mut object);
    object
}

fn remove_entries(object: &mut Value) {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    metadata.map(|metadata| metadata.remove("managedFields"));
}

fn set_entries(object: &mut Value, managers: &Managers) {
    remove_entries(object);
    if !managers.0.is_empty() {
        object["metadata"]["managedFields"] = managers.encode();
    }
}

/// Fields of metadata that the server sets, and that nobody owns.
const OF_THE_SERVER: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// Returns the fields that a writer can own: of the status by `/status` alone, and nothing that
/// names the object.
fn kept(mut set: FieldSet, is_status: bool) -> FieldSet {
    set.is_member = false;
    let field = |name: &str| Step::Field(name.to_owned());
    set.below.retain(|step, _| {
        let is_status_field = *step == field("status");
        is_status_field == is_status && *step != field("apiVersion") && *step != field("kind")
    });
    if let Some(mut metadata) = set.below.remove(&field("metadata")) {
        metadata.is_member = false;
        for name in OF_THE_SERVER {
            metadata.below.remove(&field(name));
        }
        set.put(field("metadata"), metadata);
    }
    set
}

fn check_config(info: &ResourceInfo, kind: &Type, config: &Value) -> Result<(), StatusError> {
    if !config.is_object() {
        let message = "the applied configuration is not an object";
        return Err(StatusError::bad_request(message));
    }
    let version = config["apiVersion"].as_str().unwrap_or_default();
    if version != info.api_version() {
        let message = format!(
            "incorrect version specified in apply patch. Specified patch version: {version}, \
             expected: {}",
            info.api_version()
        );
        return Err(StatusError::bad_request(message));
    }
    if config["kind"].as_str() != Some(info.kind) {
        let message = format!("the applied configuration must be of kind {}", info.kind);
        return Err(StatusError::bad_request(message));
    }
    let has_entries = match &config["metadata"]["managedFields"] {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    if has_entries {
        return Err(StatusError::bad_request(
            "metadata.managedFields must be nil",
        ));
    }
    check(kind, config, "").map_err(|(path, why)| {
        StatusError::bad_request(format!(
            "failed to create typed patch object ({}): {path}: {why}",
            info.kind
        ))
    })
}

/// Returns what client-side apply set, by its own record.
fn applied_by_client(kind: &Type, live: &Value) -> FieldSet {
    let record = live["metadata"]["annotations"][LAST_APPLIED].as_str();
    let config = record.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let fields = config.map(|config| fields_of(Some(kind), &config));
    let fields = fields.unwrap_or_default().leaves();
    // The record of what was applied is the client's as well.
    let mut annotation = FieldSet::default();
    annotation.put(Step::Field(LAST_APPLIED.to_owned()), FieldSet::member());
    let steps = ["annotations", "metadata"];
    let annotation = steps.iter().fold(annotation, |below, step| {
        let mut set = FieldSet::default();
        set.put(Step::Field((*step).to_owned()), below);
        set
    });
    fields.union(&annotation)
}

/// Client-side apply may come back to an object: its record of what was applied goes along with
/// what kubectl applies.
fn with_last_applied(
    mut applied: Applied,
    live: &Value,
    config: &Value,
    writer: &Writer,
) -> Applied {
    let had = live["metadata"]["annotations"][LAST_APPLIED].is_string();
    let annotations = applied.object.pointer_mut("/metadata/annotations");
    if let Some(annotations) = annotations.and_then(Value::as_object_mut)
        && had
        && writer.manager == KUBECTL
        && annotations.contains_key(LAST_APPLIED)
    {
        let mut config = config.clone();
        if let Some(own) = config
            .pointer_mut("/metadata/annotations")
            .and_then(Value::as_object_mut)
        {
            own.remove(LAST_APPLIED);
        }
        annotations.insert(LAST_APPLIED.to_owned(), json!(format!("{config}\n")));
    }
    applied
}

fn conflict(managers: &Managers, conflicts: &[(Writer, FieldSet)]) -> StatusError {
    let mut causes = Vec::new();
    let mut texts = Vec::new();
    for (writer, fields) in conflicts {
        let since = managers
            .0
            .get(writer)
            .map_or("", |managed| managed.time.as_str());
        let told = writer.told(since);
        texts.push(format!("conflicts with {told}:"));
        for path in fields.paths() {
            texts.push(format!("- {path}"));
            causes.push(StatusCause {
                reason: "FieldManagerConflict",
                message: format!("conflict with {told}"),
                field: path,
            });
        }
    }
    let message = match causes.as_slice() {
        [one] => format!(
            "Apply failed with 1 conflict: {}: {}",
            one.message, one.field
        ),
        many => format!(
            "Apply failed with {} conflicts: {}",
            many.len(),
            texts.join("\n")
        ),
    };
    StatusError {
        causes,
        ..StatusError::plain(409, "Conflict", message)
    }
}
