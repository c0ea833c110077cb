//! (module doc follows)
