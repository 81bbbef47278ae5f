//! How the tokens of one batch are shared out among the sequences. Pure.

use crate::chat::PrincipalId;

/// What a sequence could use in the next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nothing: no request, or a medium or a mask that is not there yet comes next.
    Nothing,
    /// The one token that was sampled last.
    Decode,
    /// This many tokens of prompt.
    Prompt(usize),
}

impl Demand {
    /// Tokens of a prompt.
    fn prompt(self) -> usize {
        match self {
            Self::Prompt(tokens) => tokens,
            Self::Nothing | Self::Decode => 0,
        }
    }
}

/// What a sequence could use, and on whose account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub demand: Demand,
    pub account: Option<PrincipalId>,
}

/// Tokens for each sequence, `batch` in all at most. Sequences that decode come first, with one
/// token each, so a long prompt holds no answer up for more than a step. Accounts share the rest
/// evenly, however many prompts each has, and an account's prompts share what it gets; what a short
/// one leaves goes to the others.
pub fn share(claims: &[Claim], batch: usize) -> Vec<usize> {
    let mut shares = vec![0; claims.len()];
    let mut left = batch;
    for (share, claim) in shares.iter_mut().zip(claims) {
        if claim.demand == Demand::Decode && left > 0 {
            *share = 1;
            left -= 1;
        }
    }
    let mut accounts: Vec<(Option<PrincipalId>, Vec<usize>)> = vec![];
    for (i, claim) in claims.iter().enumerate() {
        if claim.demand.prompt() == 0 {
            continue;
        }
        match accounts.iter_mut().find(|(of, _)| *of == claim.account) {
            Some((_, prompts)) => prompts.push(i),
            None => accounts.push((claim.account, vec![i])),
        }
    }
    let tokens = |prompts: &[usize]| -> Vec<usize> {
        let prompts = prompts.iter();
        prompts.map(|&i| claims[i].demand.prompt()).collect()
    };
    let totals: Vec<usize> = accounts
        .iter()
        .map(|(_, prompts)| tokens(prompts).iter().sum())
        .collect();
    for ((_, prompts), of_account) in accounts.iter().zip(evenly(&totals, left)) {
        let parts = evenly(&tokens(prompts), of_account);
        for (&i, part) in prompts.iter().zip(parts) {
            shares[i] = part;
        }
    }
    shares
}

/// Shares `left` out evenly among those who want so much; what one leaves goes to the others.
fn evenly(wanted: &[usize], mut left: usize) -> Vec<usize> {
    let mut shares = vec![0; wanted.len()];
    // Who wants least comes first: what that leaves is shared by those behind it.
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|&i| (wanted[i], i));
    for (done, &i) in order.iter().enumerate() {
        // Rounded up, so that the first of several gets the odd token and a batch of one is not
        // wasted.
        shares[i] = wanted[i].min(left.div_ceil(order.len() - done));
        left -= shares[i];
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use Demand::{Decode, Nothing, Prompt};
    use proptest::prelude::*;

    const ANNA: Option<PrincipalId> = Some(PrincipalId::User(1000));
    const BEN: Option<PrincipalId> = Some(PrincipalId::User(1001));

    fn claims(account: Option<PrincipalId>, demands: &[Demand]) -> Vec<Claim> {
        let claim = |&demand: &Demand| Claim { demand, account };
        demands.iter().map(claim).collect()
    }

    fn alone(demands: &[Demand], batch: usize) -> Vec<usize> {
        share(&claims(ANNA, demands), batch)
    }

    #[test]
    fn answers_come_before_prompts() {
        assert_eq!(
            alone(&[Prompt(1000), Decode, Nothing, Decode], 128),
            [126, 1, 0, 1]
        );
    }

    #[test]
    fn prompts_share_evenly() {
        assert_eq!(
            alone(&[Prompt(1000), Prompt(1000), Decode], 129),
            [64, 64, 1]
        );
        assert_eq!(
            alone(&[Prompt(1000), Prompt(10), Prompt(1000)], 128),
            [59, 10, 59]
        );
        assert_eq!(alone(&[Prompt(5), Prompt(7)], 128), [5, 7]);
    }

    #[test]
    fn a_batch_of_one_still_moves() {
        assert_eq!(alone(&[Prompt(5), Prompt(7)], 1), [1, 0]);
    }

    #[test]
    fn who_has_many_prompts_gets_no_more() {
        let prompts = [Prompt(1000); 3];
        let both = [claims(ANNA, &prompts), claims(BEN, &prompts[..1])].concat();
        assert_eq!(share(&both, 120), [20, 20, 20, 60]);
        // What BEN leaves is ANNA's.
        let short = [claims(ANNA, &prompts), claims(BEN, &[Prompt(30)])].concat();
        assert_eq!(share(&short, 120), [30, 30, 30, 30]);
    }

    fn demand() -> impl Strategy<Value = Demand> {
        prop_oneof![Just(Nothing), Just(Decode), (0usize..5000).prop_map(Prompt)]
    }

    fn claim() -> impl Strategy<Value = Claim> {
        (demand(), 0u32..4).prop_map(|(demand, user)| Claim {
            demand,
            account: Some(PrincipalId::User(user)),
        })
    }

    fn asked(claim: &Claim) -> usize {
        match claim.demand {
            Nothing => 0,
            Decode => 1,
            Prompt(tokens) => tokens,
        }
    }

    proptest! {
        #[test]
        fn never_too_much_and_never_idle_while_there_is_work(claims in prop::collection::vec(claim(), 0..20), batch in 1usize..600) {
            let shares = share(&claims, batch);
            let all: usize = claims.iter().map(asked).sum();
            prop_assert_eq!(shares.iter().sum::<usize>(), all.min(batch));
            for (share, claim) in shares.iter().zip(&claims) {
                prop_assert!(*share <= asked(claim));
            }
        }

        #[test]
        fn no_account_has_more_while_another_wants_more(claims in prop::collection::vec(claim(), 0..20), batch in 1usize..600) {
            let shares = share(&claims, batch);
            let of = |user: u32| {
                let account = Some(PrincipalId::User(user));
                let own = claims.iter().zip(&shares).filter(|(claim, _)| claim.account == account && claim.demand.prompt() > 0);
                own.fold((0, 0), |(wanted, got), (claim, share)| (wanted + claim.demand.prompt(), got + share))
            };
            for (wanted, got) in (0..4).map(of) {
                for (_, others) in (0..4).map(of) {
                    prop_assert!(got == wanted || others <= got + 1, "{got} of {wanted}, {others}");
                }
            }
        }
    }
}
