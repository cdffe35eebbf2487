-- One administrator for each organisation, locked: no password has the hash '!'.
-- The first login goes through "forgot my password".
INSERT INTO users (organization_id, email, name, password_hash, is_admin)
SELECT organizations.id, admin.email, admin.name, '!', true
FROM (VALUES
    ('obyra', 'admin@obyra.example', 'Administración OBYRA'),
    ('patagonia', 'admin@patagonia.example', 'Administración Patagonia')
) AS admin (slug, email, name)
JOIN organizations USING (slug)
ON CONFLICT (email) DO NOTHING;
