//! mlruns
