//! Black-box tests: they run the real `cairn` with an environment of their own.

#[cfg(test)]
mod arguments;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod env;
#[cfg(test)]
mod erase;
#[cfg(test)]
mod files;
#[cfg(test)]
mod flows;
#[cfg(test)]
mod gc;
#[cfg(test)]
mod help;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod replicate;
#[cfg(test)]
mod restore;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod signals;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod terminal;
