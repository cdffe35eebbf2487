//! The repository as a whole: verified, and damaged.

mod sample;
mod verify;
