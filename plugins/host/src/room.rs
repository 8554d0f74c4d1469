//! Arrays that plugins write into.

/// Values on both sides that nobody may write.
const MARGIN: usize = 64;

/// What arrays are of.
pub trait Plain: Copy {
    /// What no plugin writes by accident.
    const UNTOUCHED: Self;

    fn is_untouched(self) -> bool;
}

impl Plain for f64 {
    const UNTOUCHED: Self = f64::from_bits(0x7ff8_6d6f_7472_6169);

    fn is_untouched(self) -> bool {
        self.to_bits() == Self::UNTOUCHED.to_bits()
    }
}

impl Plain for i32 {
    const UNTOUCHED: Self = 0x6d6f_7472;

    fn is_untouched(self) -> bool {
        self == Self::UNTOUCHED
    }
}

impl Plain for u8 {
    const UNTOUCHED: Self = 0x6d;

    fn is_untouched(self) -> bool {
        self == Self::UNTOUCHED
    }
}

/// Room for results between margins that show when a plugin wrote beyond it, before that damages anything else.
pub struct Room<T>(Vec<T>);

impl<T: Plain> Room<T> {
    pub fn new(length: usize) -> Self {
        Self::filled(length, T::UNTOUCHED)
    }

    /// Where a plugin may write nothing, and finds `value`.
    pub fn filled(length: usize, value: T) -> Self {
        let mut all = vec![T::UNTOUCHED; length + 2 * MARGIN];
        all[MARGIN..MARGIN + length].fill(value);
        Self(all)
    }

    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.0[MARGIN..].as_mut_ptr()
    }

    /// What was written; places that were not are as they were, NaN among numbers.
    pub fn take(self) -> Result<Vec<T>, String> {
        let Self(mut all) = self;
        let end = all.len() - MARGIN;
        let untouched = |part: &[T]| part.iter().all(|v| v.is_untouched());
        if !untouched(&all[..MARGIN]) || !untouched(&all[end..]) {
            let room = end - MARGIN;
            return Err(format!(
                "the plugin wrote outside of the {room} numbers that it has room for; it must be mended"
            ));
        }
        all.truncate(end);
        Ok(all.split_off(MARGIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_back() {
        let mut room = Room::<f64>::new(2);
        // SAFETY: inside the room.
        unsafe { room.as_mut_ptr().write(1.5) };
        let found = room.take().unwrap();
        assert!(found.len() == 2 && found[0] == 1.5 && found[1].is_nan(), "{found:?}");
        assert_eq!(Room::<f64>::new(0).take().unwrap(), [0.0; 0]);
        assert_eq!(Room::filled(2, 0u8).take().unwrap(), [0, 0]);
        assert!(Room::<i32>::new(1).take().unwrap()[0].is_untouched());
    }

    #[test]
    fn writing_beyond_either_end_is_seen() {
        fn beyond<T: Plain + std::fmt::Debug>(value: T) {
            for at in [-1, 2] {
                let mut room = Room::<T>::new(2);
                // SAFETY: inside the margin.
                unsafe { room.as_mut_ptr().offset(at).write(value) };
                assert!(room.take().unwrap_err().contains("outside of the 2 numbers"), "{at}");
            }
        }
        beyond(0.0);
        beyond(0i32);
        beyond(1u8);
    }
}
