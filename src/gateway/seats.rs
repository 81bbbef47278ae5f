//! How many connections there are, in all and of each address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The part of all connections that are kept for the next request.
const KEPT: u32 = 8;

/// All seats.
#[derive(Debug)]
pub struct Seats {
    total: u32,
    per_address: u32,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: u32,
    addresses: HashMap<IpAddr, u32>,
}

/// One connection's; dropping it gives it back.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    address: IpAddr,
}

impl Seats {
    pub fn new(total: u32, per_address: u32) -> Arc<Self> {
        Arc::new(Self {
            total,
            per_address,
            taken: Mutex::default(),
        })
    }

    /// A seat for a connection from there, if there is one.
    pub fn take(self: &Arc<Self>, from: IpAddr) -> Option<Seat> {
        let address = network(from);
        let mut taken = self.taken();
        let mine = taken.addresses.get(&address).copied().unwrap_or(0);
        if taken.total >= self.total || mine >= self.per_address {
            return None;
        }
        taken.total += 1;
        taken.addresses.insert(address, mine + 1);
        drop(taken);
        Some(Seat {
            seats: Arc::clone(self),
            address,
        })
    }

    /// Whether so many are taken that none is kept for whoever may ask again: one that has asked holds
    /// buffers.
    pub fn are_scarce(&self) -> bool {
        self.taken().total > self.total / KEPT
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing panics while it is held; and if it did, plain numbers would still be in order.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.total -= 1;
        if let Some(mine) = taken.addresses.get_mut(&self.address) {
            *mine -= 1;
            if *mine == 0 {
                taken.addresses.remove(&self.address);
            }
        }
    }
}

/// Who has one address of IPv6 has 64 bits of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_than_a_part() {
        let seats = Seats::new(5, 2);
        let take = |from: &str| seats.take(from.parse().unwrap());
        let held = [
            take("10.0.0.1"),
            take("::ffff:10.0.0.1"),
            take("2001:db8::1"),
        ];
        assert!(held.iter().all(Option::is_some));
        assert!(take("10.0.0.1").is_none());
        let neighbour = take("2001:db8::ffff:1");
        assert!(neighbour.is_some() && take("2001:db8:0:0:1::").is_none());
        let _other = take("2001:db8:0:1::").unwrap();
        assert!(take("10.0.0.2").is_none(), "five are five");
        assert!(seats.are_scarce() && !Seats::new(8, 8).are_scarce());
        drop((held, neighbour));
        assert_eq!(seats.taken().addresses.len(), 1);
        assert!(take("10.0.0.1").is_some());
    }
}
