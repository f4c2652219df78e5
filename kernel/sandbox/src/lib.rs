//! The tiers that run foreign code, and what each of them can do.
