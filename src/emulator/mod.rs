pub mod central;
