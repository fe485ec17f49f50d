//! mlruns
#![allow(dead_code)]

mod number;
mod resolver;
mod wire;
mod yaml_emit;
mod yaml_node;
mod yaml_read;
mod yaml_scalar;
