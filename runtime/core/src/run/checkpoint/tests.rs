//! Checkpoints; see also [`super::check`], which looks at every step of every test.
