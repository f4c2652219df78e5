//! What the fields of a body and the parameters of a query must be, so that an error names the one that is
//! wrong and says what is wanted there.

use axum::extract::Query;
use axum::http::Uri;
use openfang_schema::{ErrorCode, JoinRequest, MessageRequest, RedactRequest, SpawnRequest};
use serde_json::Value;

use crate::error::ApiError;

/// A field of a body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    pub(crate) form: Form,
}

/// What stands in a field.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    Text,
    /// An array of whole numbers.
    Numbers,
}

impl Form {
    /// What it is called behind "must be".
    fn wanted(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Numbers => "an array of whole numbers",
        }
    }

    /// Returns the first element of an array that does not fit, and its place, from 0 on.
    fn misfit(self, value: &Value) -> Option<(usize, &Value)> {
        match self {
            Self::Text => None,
            Self::Numbers => {
                let mut elements = value.as_array()?.iter().enumerate();
                elements.find(|(_, element)| !element.is_u64())
            }
        }
    }

    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Numbers => value
                .as_array()
                .is_some_and(|numbers| numbers.iter().all(Value::is_u64)),
        }
    }
}

/// A body whose fields are known by name.
pub(crate) trait Fields {
    const FIELDS: &'static [Field];
}

const fn needed(name: &'static str) -> Field {
    Field {
        name,
        required: true,
        form: Form::Text,
    }
}

const fn optional(name: &'static str) -> Field {
    Field {
        name,
        required: false,
        form: Form::Text,
    }
}

impl Fields for MessageRequest {
    const FIELDS: &'static [Field] = &[
        needed("message"),
        optional("sender_id"),
        optional("sender_name"),
        optional("idempotency_key"),
    ];
}

impl Fields for SpawnRequest {
    const FIELDS: &'static [Field] = &[needed("manifest_toml")];
}

impl Fields for JoinRequest {
    const FIELDS: &'static [Field] = &[optional("ticket"), optional("addr"), optional("secret")];
}

impl Fields for RedactRequest {
    const FIELDS: &'static [Field] = &[
        Field {
            form: Form::Numbers,
            ..optional("seqs")
        },
        optional("subject"),
        needed("reason"),
    ];
}

/// Says which field of a body is wrong; `None` when none is. What stands in it is not repeated: it may be a
/// secret.
pub(super) fn wrong_field(body: &[u8], fields: &[Field]) -> Option<ApiError> {
    let refuse = |what: String| ApiError::new(ErrorCode::InvalidBody, what);
    let value = serde_json::from_slice::<Value>(body).ok()?;
    let Some(object) = value.as_object() else {
        let what = format!("The body must be an object, not {}.", kind_of(&value));
        return Some(refuse(what));
    };
    let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
    if let Some(name) = object.keys().find(|name| !names.contains(&name.as_str())) {
        let name: String = name.chars().take(64).collect();
        let unknown = refuse(format!(
            "The body has a field {name:?}, which is not known."
        ));
        let hint = format!("Its fields are {}.", names.join(", "));
        return Some(unknown.looked_for(name).hint(hint));
    }
    for Field {
        name,
        required,
        form,
    } in fields
    {
        let wanted = form.wanted();
        match object.get(*name) {
            None | Some(Value::Null) if *required => {
                let what = format!("The field {name:?} is missing; it must be {wanted}.");
                return Some(refuse(what).looked_for(name));
            }
            None | Some(Value::Null) => {}
            Some(value) if form.fits(value) => {}
            Some(other) => {
                let found = match form.misfit(other) {
                    Some((at, element)) => format!("and element {at} is {}", kind_of(element)),
                    None => format!("not {}", kind_of(other)),
                };
                let what = format!("The field {name:?} must be {wanted}, {found}.");
                return Some(refuse(what).looked_for(name));
            }
        }
    }
    None
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A parameter of a query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    /// What it must be, behind "must be".
    pub(crate) wanted: &'static str,
    pub(crate) is_good: fn(&str) -> bool,
}

/// A query whose parameters are known by name.
pub(crate) trait Parameters {
    const PARAMETERS: &'static [Parameter];
}

/// Says which parameter is wrong; `None` when none is.
pub(super) fn wrong_parameter(uri: &Uri, parameters: &[Parameter]) -> Option<ApiError> {
    let refuse = |name: &str, what: String| {
        ApiError::new(ErrorCode::InvalidParameter, what).looked_for(name)
    };
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    for Parameter {
        name,
        required,
        wanted,
        is_good,
    } in parameters
    {
        let mut values = pairs.iter().filter(|(found, _)| found == name);
        match (values.next(), values.next()) {
            (None, _) if *required => {
                let what = format!("The parameter {name} is missing; it must be {wanted}.");
                return Some(refuse(name, what));
            }
            (_, Some(_)) => {
                return Some(refuse(name, format!("The parameter {name} stands twice.")));
            }
            (Some((_, value)), None) if !is_good(value) => {
                let what = format!("The parameter {name} must be {wanted}.");
                return Some(refuse(name, what));
            }
            (Some(_) | None, None) => {}
        }
    }
    None
}

/// Whether a text is a whole number.
pub(crate) fn is_whole(text: &str) -> bool {
    text.parse::<u64>().is_ok()
}
