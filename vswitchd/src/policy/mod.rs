//! NetworkPolicy compiler: `ClusterState` to rules and address sets. Pure.
