//! The repository as a whole: verified, damaged, copied, repaired, and read by a program of another language.

mod sample;
mod verify;
