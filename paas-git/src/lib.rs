//! The git provider for paas-core: bare mirrors by gix, read without a checkout.
