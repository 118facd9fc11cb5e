//! Reads a source tree and answers how it is built: a plan and a Dockerfile.
