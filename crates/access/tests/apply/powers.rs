//! A role that may not do what is asked is told which statement would let it.

use obyra_access::plan;

use crate::support::{Admin, MODEL, World, policy};

/// What the plan of a role says is lacking: the mends of its errors.
async fn lacking(world: &World, role: &str) -> Vec<String> {
    let session = world.login(role).await;
    let policy = policy(MODEL);
    let observed = obyra_access::observe(&session, &policy, &world.target).await.unwrap();
    let plan = plan(&policy, &world.target, &observed);
    let mends = plan.findings.iter().filter(|finding| finding.severity == obyra_evidence::Severity::Error);
    mends.filter_map(|finding| finding.mend.as_ref()).map(ToString::to_string).collect()
}

#[tokio::test]
async fn who_may_not_create_or_alter_roles_is_told_what_is_missing() {
    for world in World::all().await {
        world.sql("CREATE ROLE weak LOGIN").await;
        let mends = lacking(&world, "weak").await;
        assert!(mends.iter().any(|mend| mend.contains("ALTER ROLE weak CREATEROLE")), "{mends:?}");
        assert!(mends.iter().all(|mend| !mend.contains("GRANT postgres")), "{mends:?}");

        // Another administrator made the role: before 16 CREATEROLE is enough, since then it is not.
        world.sql("CREATE ROLE obyra_app LOGIN; ALTER ROLE weak CREATEROLE").await;
        let mends = lacking(&world, "weak").await;
        let told = mends.iter().any(|mend| mend.contains("GRANT obyra_app TO weak WITH ADMIN OPTION"));
        assert_eq!(told, world.major >= 16, "{}: {mends:?}", world.major);
        assert!(mends.iter().all(|mend| !mend.contains("CREATEROLE")), "{mends:?}");
        if world.who == Admin::Superuser {
            assert_eq!(lacking(&world, "postgres").await, Vec::<String>::new());
        }
    }
}
