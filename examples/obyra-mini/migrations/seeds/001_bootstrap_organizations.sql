-- The first organisations. One that exists already is left as it is.
INSERT INTO organizations (slug, name) VALUES
    ('obyra', 'OBYRA Construcciones'),
    ('patagonia', 'Estudio Patagonia')
ON CONFLICT (slug) DO NOTHING;
