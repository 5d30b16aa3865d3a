// The container that holds a pod's namespaces.
module shardwright.dev/testbed/pause

go 1.26.0
