//! State and log stores for paas-core: SQLite and plain files.
