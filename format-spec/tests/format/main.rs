//! The codec from outside: any value survives it, nothing else harms it, and its bytes are those
//! of the golden vectors.

#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod vectors;
