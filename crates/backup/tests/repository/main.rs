//! A repository and its store, from outside: verified, copied, repaired.

mod copy;
mod limited;
mod sample;
mod verify;
