#![no_main]

tilewise_fuzz::target!("graph");
