//! Arrays that plugins write numbers into.

/// Numbers on both sides that nobody may write.
const MARGIN: usize = 64;
/// No plugin computes these bits by accident.
const UNTOUCHED: u64 = 0x7ff8_6d6f_7472_6169;

/// Room for results between margins that show when a plugin wrote beyond it, before that damages anything else.
pub struct Room(Vec<f64>);

impl Room {
    pub fn new(length: usize) -> Self {
        Self(vec![f64::from_bits(UNTOUCHED); length + 2 * MARGIN])
    }

    pub fn as_mut_ptr(&mut self) -> *mut f64 {
        self.0[MARGIN..].as_mut_ptr()
    }

    /// What was written; places that were not are NaN.
    pub fn take(self) -> Result<Vec<f64>, String> {
        let Self(mut all) = self;
        let end = all.len() - MARGIN;
        let untouched = |part: &[f64]| part.iter().all(|v| v.to_bits() == UNTOUCHED);
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
        let mut room = Room::new(2);
        // SAFETY: inside the room.
        unsafe { room.as_mut_ptr().write(1.5) };
        let found = room.take().unwrap();
        assert!(found.len() == 2 && found[0] == 1.5 && found[1].is_nan(), "{found:?}");
        assert_eq!(Room::new(0).take().unwrap(), [0.0; 0]);
    }

    #[test]
    fn writing_beyond_either_end_is_seen() {
        for at in [-1, 2] {
            let mut room = Room::new(2);
            // SAFETY: inside the margin.
            unsafe { room.as_mut_ptr().offset(at).write(0.0) };
            assert!(room.take().unwrap_err().contains("outside of the 2 numbers"), "{at}");
        }
    }
}
