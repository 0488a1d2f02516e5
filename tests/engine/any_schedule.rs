//! Whatever happens, and whenever: the promises that hold under any mixture of trouble.
