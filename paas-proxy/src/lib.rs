//! The ingress of paas-core: routes requests by host to instances, in-process or as a process of its own.
