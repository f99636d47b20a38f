//! Integration tests, in one binary: contract suites of the ports, fleets in one process, fleets for real.

#[cfg(test)]
mod contracts;
#[cfg(test)]
mod support;
