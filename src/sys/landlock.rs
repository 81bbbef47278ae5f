//! Which version of Landlock the kernel has.

/// `LANDLOCK_CREATE_RULESET_VERSION` of landlock_create_ruleset(2).
const VERSION: libc::c_uint = 1;

/// The version of Landlock's interface (ABI), from 1; `None` where the kernel has none or has it
/// switched off.
pub fn abi() -> Option<u32> {
    // SAFETY: with this flag the kernel reads no attributes and makes nothing; it returns a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            VERSION,
        )
    };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_says_what_it_lists() {
        let listed = std::fs::read_to_string("/sys/kernel/security/lsm");
        if let Ok(listed) = listed {
            assert_eq!(
                super::abi().is_some(),
                listed.contains("landlock"),
                "{listed}"
            );
        }
    }
}
