"""The running operator: watches the cluster, and brings each job forward pass by pass."""
