//! Image builder and container runtime for paas-core on the Docker Engine API.
