//! The cluster's status as the JSON text that `quorate cluster status --json` prints.

use serde_json::{Value, json};

use crate::replication::{ClusterStatus, NodeStatus};

/// One object on one line; fields and their order are relied upon by other tools.
#[must_use]
pub fn status_json(status: &ClusterStatus) -> String {
    let nodes: Vec<Value> = status.nodes.iter().map(node_json).collect();
    let value = json!({
        "cluster_id": status.cluster_id.to_string(),
        "lineage": status.lineage.to_string(),
        "leader": status.leader.as_ref().map(ToString::to_string),
        "term": status.term,
        "quorum": {
            "voters": status.voters,
            "needed": status.needed,
            "live": status.live,
        },
        "hash_index": status.hash_index,
        "nodes": nodes,
    });
    value.to_string()
}

/// Nulls for a node that cannot be reached.
fn node_json(node: &NodeStatus) -> Value {
    let report = node.report.as_ref();
    json!({
        "name": node.name.to_string(),
        "id": node.id.to_string(),
        "address": node.client_address.as_ref().map(ToString::to_string),
        "http": node.http_address.as_ref().map(ToString::to_string),
        "state": report.map(|report| report.state.as_str()),
        "role": report.map(|report| report.role.as_str()),
        "last_index": report.map(|report| report.last_index),
        "committed_index": report.map(|report| report.committed_index),
        "applied_index": report.map(|report| report.applied_index),
        "state_hash": node.state_hash.map(|hash| format!("{hash:016x}")),
        "topics": report.map(|report| report.topics),
        "sessions": report.map(|report| report.sessions),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{ClusterId, Lineage, NodeId};
    use crate::domain::node_address::NodeAddress;
    use crate::domain::node_name::NodeName;
    use crate::replication::{NodeReport, NodeState, Role};

    #[test]
    fn fields_are_those_that_tools_rely_on() {
        let report = NodeReport {
            state: NodeState::Ready,
            role: Role::Leader,
            last_index: 12,
            committed_index: 12,
            applied_index: 11,
            topics: 3,
            sessions: 2,
        };
        let node = |name: &str, report| NodeStatus {
            name: NodeName::parse(name).unwrap(),
            id: NodeId(0xab),
            client_address: NodeAddress::parse("127.0.0.1:7400").ok(),
            http_address: None,
            state_hash: Some(0xff),
            report,
        };
        let status = ClusterStatus {
            cluster_id: ClusterId(1),
            lineage: Lineage(2),
            leader: NodeName::parse("n1").ok(),
            term: 4,
            voters: 3,
            needed: 2,
            live: 2,
            hash_index: Some(11),
            nodes: vec![
                node("n1", Some(report)),
                NodeStatus { state_hash: None, ..node("n2", None) },
            ],
        };
        let value: Value = serde_json::from_str(&status_json(&status)).unwrap();
        assert_eq!(value["cluster_id"], "0000000000000001");
        assert_eq!(value["quorum"]["needed"], 2);
        assert_eq!(value["nodes"][0]["address"], "127.0.0.1:7400");
        assert_eq!(value["nodes"][0]["http"], Value::Null);
        assert_eq!(value["nodes"][0]["state_hash"], "00000000000000ff");
        assert_eq!(value["nodes"][1]["state"], Value::Null);
        assert_eq!(value["nodes"][1]["name"], "n2");
    }
}
