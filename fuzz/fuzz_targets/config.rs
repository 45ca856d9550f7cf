#![no_main]

tilewise_fuzz::target!("config");
