//! A token opened and its claims read: what a connect costs before anybody is asked.

use std::{hint::black_box, time::Duration};

use criterion::Criterion;
use daisi_ws_domain::{
    claims::{AdminClaims, UserClaims},
    ids::{AdminId, AgentId, CompanyId, UserId},
};
use daisi_ws_service::{application::auth::token::TokenKey, config::Secret};

pub(crate) fn bench(criterion: &mut Criterion) {
    let key = TokenKey::parse(&Secret::new("0f".repeat(32))).unwrap();
    let (now, expires_at) = (Duration::from_secs(1_772_439_342), Duration::from_secs(1_872_439_342));
    let user = UserClaims {
        company: CompanyId::parse("acme").unwrap(),
        agent: AgentId::parse("agent-7").unwrap(),
        user: UserId::parse("sari@acme.example").unwrap(),
        expires_at,
    };
    let admin = AdminClaims::new(AdminId::parse("root@acme.example").unwrap(), Some("acme"), None, None, expires_at).unwrap();
    let (user, admin) = (key.seal(&user.write().unwrap()).unwrap(), key.seal(&admin.write(None).unwrap()).unwrap());

    let mut group = criterion.benchmark_group("token");
    group.bench_function("user", |bencher| {
        bencher.iter(|| UserClaims::read(&key.open(black_box(&user)).unwrap(), now).unwrap());
    });
    group.bench_function("admin", |bencher| {
        bencher.iter(|| AdminClaims::read(&key.open(black_box(&admin)).unwrap(), now).unwrap());
    });
    group.finish();
}
