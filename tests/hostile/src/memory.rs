//! The memory of this process.

/// Bytes that are resident, from the kernel; zero where it cannot be asked.
pub fn resident_bytes() -> u64 {
    status("VmRSS:")
}

/// The most that were ever resident.
pub fn resident_bytes_peak() -> u64 {
    status("VmHWM:")
}

fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
