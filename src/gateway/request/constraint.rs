//! Update constraints as clients write them: a list in prefix order becomes a domain constraint.

use std::slice::Iter;

use crate::domain::constraint::{Constraint, JsonCondition, Operator, Scalar};
use crate::domain::limits;
use crate::domain::topic::json::Pointer;
use crate::domain::topic::specification::TopicType;
use crate::domain::topic::value;
use crate::gateway::request::translate::Unfit;
use crate::protocol::ErrorCode;
use crate::protocol::topic::{self as wire, ConstraintNode, WireValue};

/// The constraint that a list of nodes says; nothing always holds.
///
/// # Errors
/// [`Unfit`] names what is wrong.
pub(in crate::gateway) fn constraint(nodes: &[ConstraintNode]) -> Result<Constraint, Unfit> {
    if nodes.is_empty() {
        return Ok(Constraint::unconstrained());
    }
    let mut rest = nodes.iter();
    let constraint = take(&mut rest, 0)?;
    if rest.next().is_some() {
        return Err(unfit("nodes follow the constraint"));
    }
    Ok(constraint)
}

fn unfit(text: impl ToString) -> Unfit {
    Unfit { code: ErrorCode::InvalidConstraint, text: text.to_string() }
}

/// Takes one whole constraint off the front.
fn take(rest: &mut Iter<'_, ConstraintNode>, depth: usize) -> Result<Constraint, Unfit> {
    if depth > limits::CONSTRAINT_NODES_MAX {
        return Err(unfit("the constraint is nested too deeply"));
    }
    let node = rest.next().ok_or_else(|| unfit("the constraint ends before its last part"))?;
    let mut parts = |count: u8| -> Result<Vec<Constraint>, Unfit> {
        (0..count).map(|_| take(rest, depth + 1)).collect()
    };
    match node {
        ConstraintNode::Unconstrained => Ok(Constraint::unconstrained()),
        ConstraintNode::NoTopic => Ok(Constraint::no_topic()),
        ConstraintNode::NoValue => Ok(Constraint::no_value()),
        ConstraintNode::Value { operator, value } => value_constraint(*operator, value),
        ConstraintNode::Json { conditions } => {
            let conditions = conditions.iter().map(condition).collect::<Result<_, _>>()?;
            Constraint::json(conditions).map_err(unfit)
        }
        ConstraintNode::And { count } => Constraint::all(parts(*count)?).map_err(unfit),
        ConstraintNode::Or { count } => Constraint::any(parts(*count)?).map_err(unfit),
    }
}

fn value_constraint(operator: wire::Operator, value: &WireValue) -> Result<Constraint, Unfit> {
    let code = value.value_type;
    let value_type = TopicType::from_code(code)
        .ok_or_else(|| unfit(format!("there is no value type {code}")))?;
    value::check(value_type, value.bytes.as_deref()).map_err(unfit)?;
    match (operator, &value.bytes) {
        (wire::Operator::Is, Some(bytes)) => {
            Constraint::value_is(value_type, bytes.clone()).map_err(unfit)
        }
        (wire::Operator::Is, None) => {
            Err(unfit("null is compared with equal or not equal; for no value there is noValue"))
        }
        (operator, bytes) => {
            let scalar = scalar(value_type, bytes.as_deref())?;
            Constraint::value_compares(domain_operator(operator), scalar).map_err(unfit)
        }
    }
}

/// The scalar of a value that has been checked.
fn scalar(value_type: TopicType, bytes: Option<&[u8]>) -> Result<Scalar, Unfit> {
    let Some(bytes) = bytes else { return Ok(Scalar::Null) };
    let eight = || <[u8; 8]>::try_from(bytes).map_err(|_| unfit("a number has 8 bytes"));
    match value_type {
        TopicType::String => text_of(bytes).map(|text| Scalar::Text(text.to_owned())),
        TopicType::Int64 => Ok(Scalar::Integer(i64::from_le_bytes(eight()?))),
        TopicType::Double => Ok(Scalar::Double(f64::from_le_bytes(eight()?))),
        TopicType::Json => json_scalar(text_of(bytes)?),
        TopicType::Binary => Err(unfit("a binary value is compared by `is` only")),
    }
}

fn condition(wire: &wire::JsonCondition) -> Result<JsonCondition, Unfit> {
    let pointer = wire.pointer.parse::<Pointer>().map_err(unfit)?;
    match wire.operator {
        None => Ok(JsonCondition::absent(pointer)),
        Some(wire::Operator::Is) => {
            JsonCondition::is(pointer, text_of(&wire.value)?).map_err(unfit)
        }
        Some(operator) => {
            let scalar = json_scalar(text_of(&wire.value)?)?;
            JsonCondition::compare(pointer, domain_operator(operator), scalar).map_err(unfit)
        }
    }
}

fn json_scalar(text: &str) -> Result<Scalar, Unfit> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(unfit)?;
    match value {
        serde_json::Value::Null => Ok(Scalar::Null),
        serde_json::Value::Bool(value) => Ok(Scalar::Boolean(value)),
        serde_json::Value::String(text) => Ok(Scalar::Text(text)),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Ok(Scalar::Integer(integer)),
            (None, Some(double)) => Ok(Scalar::Double(double)),
            (None, None) => Err(unfit("a number that cannot be represented")),
        },
        serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            Err(unfit("arrays and objects are compared by `is` only"))
        }
    }
}

fn text_of(bytes: &[u8]) -> Result<&str, Unfit> {
    std::str::from_utf8(bytes).map_err(unfit)
}

fn domain_operator(operator: wire::Operator) -> Operator {
    match operator {
        wire::Operator::Is => Operator::Is,
        wire::Operator::Equal => Operator::Equal,
        wire::Operator::NotEqual => Operator::NotEqual,
        wire::Operator::Greater => Operator::Greater,
        wire::Operator::GreaterOrEqual => Operator::GreaterOrEqual,
        wire::Operator::Less => Operator::Less,
        wire::Operator::LessOrEqual => Operator::LessOrEqual,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::constraint::TopicView;

    fn string(text: &str) -> WireValue {
        let value_type = TopicType::String.code();
        WireValue { value_type, bytes: Some(Bytes::copy_from_slice(text.as_bytes())) }
    }

    fn is(text: &str) -> ConstraintNode {
        ConstraintNode::Value { operator: wire::Operator::Is, value: string(text) }
    }

    #[test]
    fn prefix_order_becomes_a_tree() {
        let nodes = [
            ConstraintNode::Or { count: 2 },
            ConstraintNode::NoTopic,
            ConstraintNode::Or { count: 2 },
            is("a"),
            is("b"),
        ];
        let constraint = constraint(&nodes).unwrap();
        let view = |value: &'static str| {
            Some(TopicView { topic_type: TopicType::String, value: Some(value.as_bytes()) })
        };
        assert!(constraint.holds(None));
        assert!(constraint.holds(view("a")));
        assert!(constraint.holds(view("b")));
        assert!(!constraint.holds(view("c")));
    }

    #[test]
    fn json_conditions_and_comparisons_are_translated() {
        let number = |number: i64| WireValue {
            value_type: TopicType::Int64.code(),
            bytes: Some(Bytes::copy_from_slice(&number.to_le_bytes())),
        };
        let greater = ConstraintNode::Value { operator: wire::Operator::Greater, value: number(5) };
        let view = |value: &'static [u8; 8]| {
            Some(TopicView { topic_type: TopicType::Int64, value: Some(value) })
        };
        let found = constraint(std::slice::from_ref(&greater)).unwrap();
        assert!(found.holds(view(&[6, 0, 0, 0, 0, 0, 0, 0])));
        assert!(!found.holds(view(&[5, 0, 0, 0, 0, 0, 0, 0])));

        let condition = |operator, value: &'static str| wire::JsonCondition {
            pointer: "/x".to_owned(),
            operator,
            value: Bytes::from_static(value.as_bytes()),
        };
        let json = |conditions| constraint(&[ConstraintNode::Json { conditions }]);
        let view = |value: &'static str| {
            Some(TopicView { topic_type: TopicType::Json, value: Some(value.as_bytes()) })
        };
        let less = json(vec![condition(Some(wire::Operator::Less), "10")]).unwrap();
        assert!(less.holds(view(r#"{"x":9}"#)));
        assert!(!less.holds(view(r#"{"x":10}"#)));
        let absent = json(vec![condition(None, "")]).unwrap();
        assert!(absent.holds(view("{}")));
        assert!(json(vec![condition(Some(wire::Operator::Less), "[1]")]).is_err());
        assert!(json(vec![condition(Some(wire::Operator::Less), "{")]).is_err());
    }

    #[test]
    fn broken_lists_are_refused() {
        for nodes in [
            vec![ConstraintNode::And { count: 2 }, ConstraintNode::NoTopic],
            vec![ConstraintNode::NoTopic, ConstraintNode::NoTopic],
            vec![ConstraintNode::And { count: 0 }],
            vec![ConstraintNode::And { count: 2 }, is("a"), is("b")],
            vec![ConstraintNode::And { count: 1 }; 200],
        ] {
            assert_eq!(constraint(&nodes).unwrap_err().code, ErrorCode::InvalidConstraint);
        }
    }
}
