//! How the tokens of one batch are shared out among the sequences. Pure.

use crate::chat::PrincipalId;

/// What a sequence could use in the next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nothing: no request, or a medium or a mask that is not there yet comes next.
    Nothing,
    /// What is known of an answer, and tokens that are tried behind it.
    Decode { fresh: usize, draft: usize },
    /// This many tokens of prompt.
    Prompt(usize),
}

impl Demand {
    /// Tokens of a prompt.
    fn prompt(self) -> usize {
        match self {
            Self::Prompt(tokens) => tokens,
            Self::Nothing | Self::Decode { .. } => 0,
        }
    }

    /// Tokens of an answer.
    pub fn answer(self) -> usize {
        match self {
            Self::Decode { fresh, draft } => fresh + draft,
            Self::Nothing | Self::Prompt(_) => 0,
        }
    }
}

/// What a sequence could use, and on whose account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub demand: Demand,
    pub account: Option<PrincipalId>,
}

/// Tokens for each sequence, `batch` in all at most. Sequences that decode come first, each with all that
/// is known of its answer, so a long prompt holds no answer up for more than a step; then what is tried. Accounts share the rest
/// evenly, however many prompts each has, and an account's prompts share what it gets; what a short
/// one leaves goes to the others.
pub fn share(claims: &[Claim], batch: usize) -> Vec<usize> {
    let mut shares = vec![0; claims.len()];
    let mut left = batch;
    for (share, claim) in shares.iter_mut().zip(claims) {
        if let Demand::Decode { fresh, .. } = claim.demand
            && left >= fresh
        {
            *share = fresh;
            left -= fresh;
        }
    }
    for (share, claim) in shares.iter_mut().zip(claims) {
        if let Demand::Decode { draft, .. } = claim.demand
            && *share > 0
        {
            let draft = draft.min(left);
            *share += draft;
            left -= draft;
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

    /// The one token that was sampled last.
    const ONE: Demand = Decode { fresh: 1, draft: 0 };

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
            alone(&[Prompt(1000), ONE, Nothing, ONE], 128),
            [126, 1, 0, 1]
        );
    }

    #[test]
    fn what_is_known_comes_before_what_is_tried() {
        let answer = |fresh, draft| Decode { fresh, draft };
        let all = [answer(1, 8), answer(4, 2), Prompt(9)];
        assert_eq!(alone(&all, 5), [1, 4, 0]);
        assert_eq!(alone(&all, 8), [4, 4, 0]);
        assert_eq!(alone(&all, 17), [9, 6, 2]);
        // All that is known, or nothing.
        assert_eq!(alone(&[answer(4, 0), ONE], 3), [0, 1]);
    }

    #[test]
    fn prompts_share_evenly() {
        assert_eq!(alone(&[Prompt(1000), Prompt(1000), ONE], 129), [64, 64, 1]);
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
        let decode = (0usize..9).prop_map(|draft| Decode { fresh: 1, draft });
        prop_oneof![Just(Nothing), decode, (0usize..5000).prop_map(Prompt)]
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
            Decode { fresh, draft } => fresh + draft,
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
